# An UNMAP that ends inside a mapping takes it away all the same.
s|r->last\) \? VIOMMU_RANGE|r->first) ? VIOMMU_RANGE|
