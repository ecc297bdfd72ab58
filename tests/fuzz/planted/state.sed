# What a section held up to the field that is refused is in the structure already.
s/(ret = load_records\(r, st, err\);)/\1 commit_one(st);/
