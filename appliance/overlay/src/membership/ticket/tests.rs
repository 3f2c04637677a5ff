//! Tests of tickets: each refusal by name, and what is never shown.
