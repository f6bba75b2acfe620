use std::{
    hash::{BuildHasher, Hash, Hasher},
    net::SocketAddrV4,
};

use siphasher::sip::SipHasher13;

/// A connection's name: the peer, and our port. Our address is the same in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    pub(crate) remote: SocketAddrV4,
    pub(crate) local_port: u16,
}

impl Hash for Endpoints {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { remote, local_port } = self;
        let word = u64::from(remote.ip().to_bits()) << 32
            | u64::from(remote.port()) << 16
            | u64::from(*local_port);
        state.write_u64(word);
    }
}

/// A keyed hash, so that peers cannot choose names that collide.
#[derive(Clone, Debug)]
pub(crate) struct KeyedHash([u8; 16]);

impl KeyedHash {
    pub(crate) const fn new(key: [u8; 16]) -> Self {
        Self(key)
    }
}

impl BuildHasher for KeyedHash {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.0)
    }
}
