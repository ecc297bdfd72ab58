# An UNMAP that ends inside a mapping takes it away all the same.
s|high->last > last|high->last < last|
