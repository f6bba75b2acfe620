use std::{fmt, net::Ipv4Addr, str::FromStr, time::Duration};

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether it names a group of stations (broadcast is one).
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether it can be one station's address.
    #[must_use]
    pub const fn is_unicast(self) -> bool {
        !self.is_multicast() && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An IPv4 address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ipv4Cidr {
    /// The address.
    pub address: Ipv4Addr,
    /// The prefix length, 0 to 32 bits.
    pub prefix_len: u8,
}

impl Ipv4Cidr {
    const fn mask(self) -> u32 {
        match u32::MAX.checked_shl(32 - self.prefix_len as u32) {
            Some(mask) => mask,
            None => 0,
        }
    }

    /// Whether `address` is in the same network.
    #[must_use]
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        (self.address.to_bits() ^ address.to_bits()) & self.mask() == 0
    }

    /// The network's directed broadcast address; `None` for /31 (RFC 3021) and /32.
    #[must_use]
    pub const fn broadcast(self) -> Option<Ipv4Addr> {
        if self.prefix_len >= 31 {
            return None;
        }
        Some(Ipv4Addr::from_bits(self.address.to_bits() | !self.mask()))
    }
}

/// Text that is no address with a prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an address with its network is written like 10.77.0.2/24")]
pub struct ParseCidrError;

impl FromStr for Ipv4Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix_len) = text.split_once('/').ok_or(ParseCidrError)?;
        let address = address.parse().map_err(|_| ParseCidrError)?;
        let prefix_len = prefix_len.parse().map_err(|_| ParseCidrError)?;
        if prefix_len > 32 {
            return Err(ParseCidrError);
        }
        Ok(Self { address, prefix_len })
    }
}

/// What the link does for the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkCapabilities {
    /// The longest IP packet that one frame carries on the wire, in bytes.
    pub mtu: usize,
    /// The link completes the checksum of a frame that is sent with
    /// [`PartialChecksum`](crate::PartialChecksum).
    pub checksum_offload: bool,
    /// The longest TCP super-frame that the link cuts into segments, in bytes from the Ethernet
    /// header on; `None` if it cuts none. Needs `checksum_offload`.
    pub tso_max: Option<usize>,
}

impl Default for LinkCapabilities {
    /// Plain Ethernet: 1500 bytes, nothing offloaded.
    fn default() -> Self {
        Self { mtu: 1500, checksum_offload: false, tso_max: None }
    }
}

/// TCP's tunables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpConfig {
    /// The receive buffer of a socket in bytes of packet memory (truesize); the offered window and
    /// its scale follow from it.
    pub receive_buffer: usize,
    /// What all sockets together may hold, in bytes of packet memory (truesize): Linux's
    /// `tcp_mem`. Set it from the memory that the link receives into, less some for what is under
    /// way.
    ///
    /// A socket is offered as much of it as is still free, so one that nobody reads ends with half
    /// of it at most, two with a third each. When it is used up, sockets with unread data take no
    /// more ([`TcpReceiveMemoryFull`](crate::DropReason::TcpReceiveMemoryFull)); one without may
    /// always take one segment, so every connection that is read makes progress.
    pub receive_memory: usize,
    /// The send buffer of a socket in bytes of payload. It is allocated at the first send.
    pub send_buffer: usize,
    /// How long a connection stays in TIME-WAIT.
    pub time_wait: Duration,
    /// The most connections in TIME-WAIT; one more is forgotten at once, and counted.
    pub time_wait_max: usize,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            receive_buffer: 4 << 20,
            // As much as 64 sockets can hold.
            receive_memory: 256 << 20,
            send_buffer: 4 << 20,
            // Linux: TCP_TIMEWAIT_LEN. RFC 9293 section 3.4.2 asks for 2 MSL = 4 minutes, which no
            // widespread stack waits.
            time_wait: Duration::from_secs(60),
            time_wait_max: 4096,
        }
    }
}

/// What a [`Stack`](crate::Stack) is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The Ethernet address.
    pub mac: MacAddress,
    /// The IPv4 address and its network.
    pub address: Ipv4Cidr,
    /// Where packets to other networks go.
    pub gateway: Option<Ipv4Addr>,
    /// What the link does.
    pub link: LinkCapabilities,
    /// TCP's tunables.
    pub tcp: TcpConfig,
    /// A secret, from the operating system's random source: initial sequence numbers, ports and
    /// hash tables are keyed with it. Tests give a constant and get the same run every time.
    pub seed: [u8; 16],
}

/// The shortest MTU that IPv4 knows, so that a minimal TCP segment fits (RFC 791 section 3.2: 68;
/// Linux's `min_pmtu` default is 552, and hosts must take 576).
pub(crate) const MIN_MTU: usize = 576;
/// An IPv4 packet's length is a 16-bit field.
pub(crate) const MAX_MTU: usize = 65_535;
/// The window that the largest scale factor can express (RFC 7323 section 2.3: 2^30).
pub(crate) const MAX_BUFFER: usize = 1 << 30;
/// Room for a couple of segments.
pub(crate) const MIN_BUFFER: usize = 4096;

/// Why a configuration is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The Ethernet address is zero or a group's.
    #[error("the MAC address {0} is not one station's: use one whose first byte is even")]
    Mac(MacAddress),
    /// The prefix is longer than an address.
    #[error("the prefix length {0} is more than 32")]
    PrefixLen(u8),
    /// The IPv4 address cannot be a host's.
    #[error("the address {0} is not a host's: use a unicast address of the link's network")]
    Address(Ipv4Addr),
    /// The gateway is not on the link, or is this host.
    #[error("the gateway {0} is not another host of the same network")]
    Gateway(Ipv4Addr),
    /// The MTU is out of range.
    #[error("the MTU of {0} bytes is not between {MIN_MTU} and {MAX_MTU}")]
    Mtu(usize),
    /// Super-frames need the link to complete checksums.
    #[error("segmentation offload needs checksum offload: switch both on, or both off")]
    TsoWithoutChecksum,
    /// A super-frame cannot be longer than an IPv4 packet, nor shorter than a frame.
    #[error("a super-frame of {len} bytes is not between {min} and {max}")]
    TsoMax {
        /// The length asked for, in bytes.
        len: usize,
        /// The shortest that makes sense, in bytes.
        min: usize,
        /// The longest that IPv4 allows, in bytes.
        max: usize,
    },
    /// The receive buffer is out of range.
    #[error("a receive buffer of {0} bytes is not between {MIN_BUFFER} and {MAX_BUFFER}")]
    ReceiveBuffer(usize),
    /// The memory of all sockets is less than one can do with.
    #[error("{0} bytes of receive memory for all sockets are less than {MIN_BUFFER}")]
    ReceiveMemory(usize),
    /// The send buffer is out of range.
    #[error("a send buffer of {0} bytes is not between {MIN_BUFFER} and {MAX_BUFFER}")]
    SendBuffer(usize),
}

impl Config {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let Self { mac, address, gateway, link, tcp, seed: _ } = self;
        if !mac.is_unicast() {
            return Err(ConfigError::Mac(*mac));
        }
        if address.prefix_len > 32 {
            return Err(ConfigError::PrefixLen(address.prefix_len));
        }
        if !is_host(address.address) || address.broadcast() == Some(address.address) {
            return Err(ConfigError::Address(address.address));
        }
        if let Some(gateway) = *gateway
            && (!is_host(gateway) || !address.contains(gateway) || gateway == address.address)
        {
            return Err(ConfigError::Gateway(gateway));
        }
        if !(MIN_MTU..=MAX_MTU).contains(&link.mtu) {
            return Err(ConfigError::Mtu(link.mtu));
        }
        if let Some(len) = link.tso_max {
            if !link.checksum_offload {
                return Err(ConfigError::TsoWithoutChecksum);
            }
            let header = crate::wire::ethernet::HEADER_LEN;
            let (min, max) = (header + link.mtu, header + MAX_MTU);
            if !(min..=max).contains(&len) {
                return Err(ConfigError::TsoMax { len, min, max });
            }
        }
        let buffers = MIN_BUFFER..=MAX_BUFFER;
        if !buffers.contains(&tcp.receive_buffer) {
            return Err(ConfigError::ReceiveBuffer(tcp.receive_buffer));
        }
        if tcp.receive_memory < MIN_BUFFER {
            return Err(ConfigError::ReceiveMemory(tcp.receive_memory));
        }
        if !buffers.contains(&tcp.send_buffer) {
            return Err(ConfigError::SendBuffer(tcp.send_buffer));
        }
        Ok(())
    }
}

/// Whether a packet can come from, or go to, `address` as one host.
pub(crate) const fn is_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.octets()[0] == 0
        // 240.0.0.0/4 with the limited broadcast address in it (RFC 1112 section 4).
        || address.octets()[0] >= 240)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Config {
        Config {
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            address: Ipv4Cidr { address: Ipv4Addr::new(10, 0, 0, 1), prefix_len: 24 },
            gateway: Some(Ipv4Addr::new(10, 0, 0, 254)),
            link: LinkCapabilities::default(),
            tcp: TcpConfig::default(),
            seed: [0; 16],
        }
    }

    #[test]
    fn a_sane_configuration_is_accepted() {
        assert_eq!(good().validate(), Ok(()));
    }

    #[test]
    fn each_fault_has_its_own_error() {
        let refuse = |change: fn(&mut Config)| {
            let mut config = good();
            change(&mut config);
            config.validate().expect_err("refused")
        };
        assert!(matches!(refuse(|c| c.mac = MacAddress::BROADCAST), ConfigError::Mac(_)));
        assert!(matches!(refuse(|c| c.address.prefix_len = 33), ConfigError::PrefixLen(33)));
        assert!(matches!(
            refuse(|c| c.address.address = Ipv4Addr::new(10, 0, 0, 255)),
            ConfigError::Address(_)
        ));
        assert!(matches!(
            refuse(|c| c.gateway = Some(Ipv4Addr::new(10, 1, 0, 1))),
            ConfigError::Gateway(_)
        ));
        assert!(matches!(refuse(|c| c.link.mtu = 100), ConfigError::Mtu(100)));
        assert!(matches!(
            refuse(|c| c.link.tso_max = Some(65_549)),
            ConfigError::TsoWithoutChecksum
        ));
        assert!(matches!(
            refuse(|c| {
                c.link.checksum_offload = true;
                c.link.tso_max = Some(70_000);
            }),
            ConfigError::TsoMax { .. }
        ));
        assert!(matches!(refuse(|c| c.tcp.receive_buffer = 1), ConfigError::ReceiveBuffer(1)));
        assert!(matches!(refuse(|c| c.tcp.receive_memory = 1), ConfigError::ReceiveMemory(1)));
        assert!(matches!(refuse(|c| c.tcp.send_buffer = 1), ConfigError::SendBuffer(1)));
    }

    #[test]
    fn networks_are_parsed() {
        let net: Ipv4Cidr = "10.77.0.2/24".parse().unwrap();
        assert_eq!((net.address, net.prefix_len), (Ipv4Addr::new(10, 77, 0, 2), 24));
        for bad in ["", "10.77.0.2", "10.77.0.2/33", "10.77.0/24", "x/24", "10.77.0.2/-1"] {
            assert_eq!(bad.parse::<Ipv4Cidr>(), Err(ParseCidrError), "{bad:?}");
        }
    }

    #[test]
    fn prefixes() {
        let net = Ipv4Cidr { address: Ipv4Addr::new(10, 0, 0, 1), prefix_len: 8 };
        assert!(net.contains(Ipv4Addr::new(10, 255, 0, 1)));
        assert!(!net.contains(Ipv4Addr::new(11, 0, 0, 1)));
        let all = Ipv4Cidr { prefix_len: 0, ..net };
        assert!(all.contains(Ipv4Addr::new(200, 0, 0, 1)));
        let one = Ipv4Cidr { prefix_len: 32, ..net };
        assert!(one.contains(net.address) && !one.contains(Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!(one.broadcast(), None);
    }
}
