//! A pool and its members, the same in every run.

use std::sync::OnceLock;
use std::time::Duration;

use rand::SeedableRng;
use wow_overlay::Rng;
use wow_overlay::membership::{
    Certificate, CertificateRequest, Identity, PoolAuthority, PoolName, Roles, Ticket,
};
use wow_overlay::session::{CipherPreference, Endpoint, StaticKey};
use wow_overlay::time::UnixTime;

/// A moment at which every certificate holds.
pub(super) const WALL: UnixTime = UnixTime(1_800_000_000);
const VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);
/// Members of the pool.
const MEMBERS: usize = 3;

pub(super) struct Pool {
    pub(super) authority: PoolAuthority,
    pub(super) ticket: Ticket,
    pub(super) members: Vec<(Identity, Certificate)>,
}

/// A generator that gives the same in every run.
pub(super) fn rng(seed: u64) -> Rng {
    Rng::seed_from_u64(seed)
}

/// The pool.
pub(super) fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(Pool::make)
}

impl Pool {
    fn make() -> Pool {
        let mut rng = rng(42);
        let name = PoolName::new("fuzzed").expect("the name is valid");
        let range = "10.128.0.0/9".parse().expect("the range is valid");
        let seeds = vec!["seed.example.org:4001".parse().expect("a seed")];
        let authority = PoolAuthority::create(name, range, seeds, &mut rng).expect("sound parts");
        let ticket = authority
            .issue_ticket(Roles::ALL, WALL, WALL + VALIDITY, None, &mut rng)
            .expect("sound parts");
        let member = |index| {
            let identity = Identity::generate(&mut rng);
            let request = CertificateRequest {
                name: format!("node-{index}").parse().expect("the name is valid"),
                roles: Roles::ROUTER,
                fixed_address: None,
                not_before: WALL,
                not_after: WALL + VALIDITY,
            };
            let certificate = ticket.certify(&identity, &request);
            (identity, certificate.expect("the ticket allows it"))
        };
        let members = (0..MEMBERS).map(member).collect();
        Pool {
            authority,
            ticket,
            members,
        }
    }

    /// What a member's handshakes share.
    pub(super) fn endpoint(&self, member: usize) -> Endpoint {
        let identity = &self.members[member].0;
        let key = StaticKey::new(*identity.static_secret(), identity.static_public());
        let pool_key = &self.authority.facts().key.0;
        Endpoint::new(key, pool_key, CipherPreference::aes_first())
    }

    /// A member's public static key.
    pub(super) fn static_key(&self, member: usize) -> [u8; 32] {
        self.members[member].0.static_public()
    }
}
