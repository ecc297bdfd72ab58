# Two devices may ask for the same address.
s/if \(slots->user\[a->slot\]\[a->function\]\)/if (false)/
