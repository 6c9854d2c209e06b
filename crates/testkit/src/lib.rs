//! For tests only: temp homes, free ports, polling with a deadline.
