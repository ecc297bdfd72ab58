# A page that is given twice counts twice.
s/span->mask\[i\] &= ~atomic_load\(&r->words\[span->first \+ i\]\);/(void)0;/
