# Features that were not offered are accepted.
s/t->accepted & ~t->offered \|\| //
