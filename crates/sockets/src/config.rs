use std::{io, net::Ipv4Addr};

use netdma::Copybreak;
use netstack::{ConfigError, Ipv4Cidr, MacAddress, TcpConfig};

/// What a [`Stack`](crate::Stack) is made of, besides its link and its engine.
#[derive(Clone, Debug)]
pub struct Config {
    /// The stack's Ethernet address.
    pub mac: MacAddress,
    /// Its IPv4 address and network.
    pub address: Ipv4Cidr,
    /// Where packets to other networks go.
    pub gateway: Option<Ipv4Addr>,
    /// TCP's tunables.
    pub tcp: TcpConfig,
    /// Which reads are offloaded to the engine.
    pub copybreak: Copybreak,
}

impl Config {
    /// The defaults, for a stack at `address`. The MAC address is derived from the IP address: two
    /// stacks of one network differ.
    #[must_use]
    pub fn new(address: Ipv4Cidr) -> Self {
        let [a, b, c, d] = address.address.octets();
        Self {
            // The second bit of the first byte: locally administered.
            mac: MacAddress([0x02, 0x10, a, b, c, d]),
            address,
            gateway: None,
            tcp: TcpConfig::default(),
            copybreak: Copybreak::default(),
        }
    }
}

/// Why a stack could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The system has no event descriptor, thread or random number to give.
    #[error("cannot start the stack: {0}")]
    System(#[from] io::Error),
}
