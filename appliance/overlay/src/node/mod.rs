//! The node: the facade that the daemon and the simulator drive.
