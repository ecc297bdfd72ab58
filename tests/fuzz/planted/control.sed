# A body that comes in several parts overwrites its first bytes.
s/memcpy\(r->body \+ r->n_body, at, n\);/memcpy(r->body, at, n);/
