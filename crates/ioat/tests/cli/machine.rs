//! What this machine cannot do is refused with exit status 3, and says what to do about it.

use std::net::Ipv4Addr;

use ioat::netlink::Netlink;

use crate::{
    AS_NOBODY, MACHINE, Running, STACK, USAGE, in_namespace, ioat, ioat_after, links_here, refuses,
    tun_with_mode,
};

const RECV: [&str; 3] = ["recv", "--listen", STACK];
const DEMO: [&str; 5] = ["demo", "--bytes", "1M", "--rounds", "1"];

#[test]
fn no_tun_device() {
    in_namespace(|| {
        let script = r#"mount -t tmpfs tmpfs /dev/net; exec "$@""#;
        for arguments in [&RECV[..], &DEMO] {
            let words = ["no /dev/net/tun", "modprobe tun"];
            refuses(&mut ioat_after(script, arguments), MACHINE, &words);
        }
    });
}

#[test]
fn a_tun_device_that_is_closed_to_this_user() {
    in_namespace(|| {
        let script = tun_with_mode("600") + AS_NOBODY;
        for arguments in [&RECV[..], &DEMO] {
            let words = ["/dev/net/tun is closed to this user", "chmod 666"];
            refuses(&mut ioat_after(&script, arguments), MACHINE, &words);
        }
    });
}

#[test]
fn no_right_to_make_an_interface() {
    in_namespace(|| {
        // The device is open to all, but this network namespace is root's.
        let script = tun_with_mode("666") + AS_NOBODY;
        let words = ["no right to use the interface ioat0", "ip tuntap add"];
        refuses(&mut ioat_after(&script, &RECV), MACHINE, &words);
    });
}

#[test]
fn user_namespaces_are_forbidden() {
    // unshare(2) answers EPERM to who is in a chroot.
    let script = r#"
        mount -t tmpfs -o mode=755 tmpfs /mnt
        cp "$1" /mnt/ioat
        shift
        mkdir /mnt/root
        mount --rbind / /mnt/root
        exec chroot --userspec=65534:65534 /mnt/root /mnt/ioat "$@""#;
    let words = ["forbids user namespaces", "run as root"];
    refuses(&mut ioat_after(script, &DEMO), MACHINE, &words);
}

#[test]
fn no_more_namespaces_are_allowed() {
    // The limits are those of the user namespace that the shell is in.
    let script = r#"
        exec unshare --user --map-root-user sh -euc '
            echo 0 > /proc/sys/user/max_user_namespaces
            echo 0 > /proc/sys/user/max_net_namespaces
            exec "$@"' sh "$@""#;
    let words = ["no more namespaces", "user.max_user_namespaces"];
    refuses(&mut ioat_after(script, &DEMO), MACHINE, &words);
}

#[test]
fn the_interface_is_in_use() {
    in_namespace(|| {
        let first = Running::listening(&mut ioat(&RECV));
        let second = ["recv", "--listen", "10.78.0.2:9000"];
        refuses(&mut ioat(&second), MACHINE, &["ioat0 is in use", "another name"]);
        first.interrupt();
        first.finish();
    });
}

#[test]
fn the_interface_is_no_tap() {
    in_namespace(|| {
        let mut command = ioat(&RECV);
        refuses(command.args(["--link", "tap:lo"]), MACHINE, &["lo", "take another name"]);
    });
}

#[test]
fn the_address_is_this_machines_own() {
    in_namespace(|| {
        let mut netlink = Netlink::open().unwrap();
        let loopback = netlink.link("lo").unwrap().index;
        netlink.add_address(loopback, Ipv4Addr::new(10, 77, 0, 2), 32).unwrap();
        refuses(&mut ioat(&RECV), MACHINE, &["10.77.0.2 is in use", "another one"]);
        assert_eq!(links_here(), ["lo"], "the link is gone");
    });
}

#[test]
fn names_and_addresses_that_cannot_be() {
    in_namespace(|| {
        let link = ["--link", "tap:a-name-that-is-too-long"];
        refuses(ioat(&RECV).args(link), USAGE, &["cannot name an interface"]);
        let broadcast = ["recv", "--listen", "10.77.0.255:9000"];
        refuses(&mut ioat(&broadcast), USAGE, &["10.77.0.255 is not a host's"]);
        let alone = ["--address", "10.77.0.2/32"];
        refuses(ioat(&RECV).args(alone), USAGE, &["no address for the kernel's end"]);
        assert_eq!(links_here(), ["lo"], "the link is gone");
    });
}
