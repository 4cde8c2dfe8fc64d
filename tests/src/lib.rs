//! Tests that start whole machines.
