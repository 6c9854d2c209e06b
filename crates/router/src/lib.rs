//! Requests to processes: listener, routing table, forwarding, access lines.
