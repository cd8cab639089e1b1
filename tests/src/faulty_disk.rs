//! A disk that fails on command.
