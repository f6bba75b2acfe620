//! Calls that wait.
