//! Tests of certificates: each refusal by name, sizes, and what only the signers can make.
