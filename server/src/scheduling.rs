//! The scheduling class that the threads which write have obtained.
