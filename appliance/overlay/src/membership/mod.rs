//! Pools, tickets, certificates and identities.
