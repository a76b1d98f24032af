//! How do datagrams get from the kernel to a shard and back?
