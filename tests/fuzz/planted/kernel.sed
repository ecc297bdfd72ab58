# A relocated field may lie up to 1 MiB behind the kernel.
s/range_inside\(va, size, v->base_va, v->span_bytes\)/range_inside(va, size, v->base_va, v->span_bytes + MiB)/
