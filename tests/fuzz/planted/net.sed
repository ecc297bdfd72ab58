# A frame may be shorter than its own header.
s/NET_HEADER_BYTES \+ NET_FRAME_MIN/NET_HEADER_BYTES + 1/
