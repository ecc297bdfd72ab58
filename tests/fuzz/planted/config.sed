# Two devices may ask for the same address.
s/if \(user\)$/if (false)/
