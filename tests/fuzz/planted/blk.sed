# A range need not begin where a block of the disk does.
s/is_aligned\(sector, block_sectors\) && //
