//! The laboratory against this kernel.

use std::{
    io::Read,
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    process::ExitCode,
};

use ioat::{
    lab::{Pattern, PeerNamespace, Sender, SenderConfig, SenderError, Transfer, VethBaseline},
    netlink::{LinkState, Netlink, NetlinkError},
};

use crate::namespace::{run, tests};

mod namespace;

fn main() -> ExitCode {
    run(tests![
        the_namespace_is_empty_and_ours,
        links_are_made_changed_and_deleted,
        addresses_are_added_once_and_listed,
        refusals_say_what_was_refused,
        a_sender_sends_every_byte,
        a_sender_that_nobody_hears_says_so,
        the_baseline_moves_every_byte,
        the_baseline_leaves_nothing,
    ])
}

fn netlink() -> Netlink {
    Netlink::open().unwrap()
}

fn loopback() -> LinkState {
    netlink().link("lo").unwrap()
}

fn set_up_loopback() {
    netlink().set_up(loopback().index).unwrap();
}

fn the_namespace_is_empty_and_ours() {
    assert!(!loopback().up, "a fresh namespace: nobody has set its loopback up");
    assert!(netlink().ipv4_addresses(loopback().index).unwrap().is_empty());
    set_up_loopback();
    let LinkState { up, carrier, .. } = loopback();
    assert!(up && carrier);
    let addresses = netlink().ipv4_addresses(loopback().index).unwrap();
    assert_eq!(addresses, [(Ipv4Addr::LOCALHOST, 8)]);
}

fn links_are_made_changed_and_deleted() {
    let peer = PeerNamespace::new().unwrap();
    netlink().add_veth("left", "right", &peer).unwrap();
    let left = netlink().link("left").unwrap();
    assert_eq!((left.mtu, left.up, left.carrier), (1500, false, false));
    assert!(netlink().link("right").is_err(), "it is in the other namespace");

    netlink().set_mtu(left.index, 9000).unwrap();
    netlink().set_up(left.index).unwrap();
    peer.run(|| netlink().link("right").and_then(|right| netlink().set_up(right.index)))
        .unwrap()
        .unwrap();
    let left = netlink().link("left").unwrap();
    assert_eq!((left.mtu, left.up, left.carrier), (9000, true, true));
    netlink().set_down(left.index).unwrap();
    let left = netlink().link("left").unwrap();
    assert_eq!((left.up, left.carrier), (false, false));

    netlink().delete(left.index).unwrap();
    assert!(matches!(netlink().link("left"), Err(NetlinkError::NoSuchLink { .. })));
    assert!(peer.run(|| netlink().link("right").is_err()).unwrap());
}

fn addresses_are_added_once_and_listed() {
    let index = loopback().index;
    let (a, b) = (Ipv4Addr::new(10, 1, 2, 3), Ipv4Addr::new(10, 9, 9, 9));
    netlink().add_address(index, a, 24).unwrap();
    netlink().add_address(index, b, 32).unwrap();
    let addresses = netlink().ipv4_addresses(index).unwrap();
    assert!(addresses.contains(&(a, 24)) && addresses.contains(&(b, 32)), "{addresses:?}");
    let again = netlink().add_address(index, a, 24);
    assert!(matches!(again, Err(NetlinkError::Exists { .. })), "{again:?}");
    assert!(netlink().ipv4_addresses(index + 1000).unwrap().is_empty());
    assert!(netlink().has_ipv4_address(b).unwrap());
    assert!(!netlink().has_ipv4_address(Ipv4Addr::new(10, 1, 2, 4)).unwrap());
}

fn refusals_say_what_was_refused() {
    let refused = netlink().set_up(12_345).unwrap_err().to_string();
    assert!(refused.contains("set link 12345 up"), "{refused}");
    let missing = netlink().link("nowhere").unwrap_err().to_string();
    assert!(missing.contains("nowhere"), "{missing}");
    assert!(netlink().link("a name that is far too long").is_err());
}

fn an_allowed_cpu() -> usize {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    (0..rustix::thread::CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).unwrap()
}

fn a_sender_sends_every_byte() {
    const BYTES: u64 = 3_000_001;
    set_up_loopback();
    let pattern = Pattern::new(5);
    for unique in [true, false] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let sender = Sender::start(SenderConfig {
            to: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
            bytes: BYTES,
            pattern,
            unique,
            namespace: None,
            cpu: Some(an_allowed_cpu()),
        })
        .unwrap();
        let mut received = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
        let sent = sender.join().unwrap();
        assert_eq!((sent.bytes, received.len() as u64), (BYTES, BYTES));
        assert!(!sent.cpu_time.is_zero());
        if unique {
            assert_eq!(pattern.first_wrong(0, &received), None);
        } else {
            for piece in received.chunks(256 << 10) {
                assert_eq!(pattern.first_wrong(0, piece), None);
            }
        }
    }
}

fn a_sender_that_nobody_hears_says_so() {
    set_up_loopback();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let config = SenderConfig {
        to: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
        bytes: 1,
        pattern: Pattern::new(0),
        unique: false,
        namespace: None,
        cpu: None,
    };
    let refused = Sender::start(config.clone()).unwrap().join();
    assert!(matches!(refused, Err(SenderError::Connect { .. })), "{refused:?}");
    let refused = Sender::start(SenderConfig { cpu: Some(1 << 20), ..config }).unwrap().join();
    assert!(matches!(refused, Err(SenderError::Cpu { cpu: 1_048_576, .. })), "{refused:?}");
}

fn the_baseline_moves_every_byte() {
    const BYTES: u64 = 20_000_001;
    let baseline = VethBaseline::new().unwrap();
    let mut buffer = vec![0; 100_000];
    for checked in [true, false] {
        let transfer = Transfer { bytes: BYTES, checked, sender_cpu: None };
        let mut seen = 0;
        let (measured, sent) =
            transfer.run(&baseline, &mut buffer, |len| seen += len as u64).unwrap();
        assert_eq!((measured.bytes, sent.bytes, seen), (BYTES, BYTES, BYTES));
        assert!(!measured.wall.is_zero() && !measured.cpu.is_zero() && !sent.cpu_time.is_zero());
    }
}

fn the_baseline_leaves_nothing() {
    drop(VethBaseline::new().unwrap());
    // The names are free again.
    drop(VethBaseline::new().unwrap());
    assert!(netlink().link("veth0").is_err());
}
