//! DMA to memory that a client has mapped, and to memory that it has not.

use std::{fs::File, os::fd::AsFd, time::Instant};

use ioat_model::{
    Config, PAGE,
    descriptor::Control,
    registers::{ChanErr, channel::*},
};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use crate::{bytes, client::*, served::Served};

const COMPL: u64 = Control::COMPL_WRITE.bits() as u64;
/// Where the tests map the guest's first page.
const BASE: u64 = 0x1_0000_0000;

fn errno<T>(errno: Errno) -> Result<T, Refused> {
    Err(errno.raw_os_error())
}

/// A client of a device that may reach memory, with the completion word at the start of page 1.
fn ready(served: &Served) -> Client {
    let mut client = served.client();
    client.enable();
    completions_at(&mut client, BASE + PAGE);
    client
}

fn completions_at(client: &mut Client, address: u64) {
    client.write_channel(0, CHANCMP, &(address as u32).to_le_bytes());
    client.write_channel(0, CHANCMP + 4, &((address >> 32) as u32).to_le_bytes());
}

/// Resets the channel after a halt.
fn reset(client: &mut Client) {
    client.write_channel(0, CHANCMD, &[0x20]);
    let deadline = Instant::now() + SOON;
    while client.read_channel(0, CHANCMD, 1) != 0 {
        assert!(Instant::now() < deadline, "the reset ends");
    }
    client.write_channel(0, CHANERR, &u32::MAX.to_le_bytes());
    completions_at(client, BASE + PAGE);
}

/// Copies `len` bytes, with the descriptor in page 0, which must be mapped.
fn copy(client: &mut Client, guest: &Guest, from_to: (u64, u64), len: u32) -> (u64, u32) {
    guest.copy(0, COMPL, from_to, len, BASE);
    client.start(0, BASE, 1);
    client.finish(0)
}

#[test]
fn bytes_are_copied_across_regions_and_files() {
    for sealed in [false, true] {
        let served = Served::simple();
        let mut client = ready(&served);
        let guest = if sealed { Guest::sealed(8) } else { Guest::new(8) };
        let other = Guest::new(4);
        client.map((BASE, 2 * PAGE), READ | WRITE, Some((guest.fd(), 0))).expect("it is free");
        // Bus addresses in a row, pages of the file in another order, then another file.
        let source = BASE + 16 * PAGE;
        for (index, page) in [7, 3, 5].into_iter().enumerate() {
            let at = source + index as u64 * PAGE;
            client.map((at, PAGE), READ, Some((guest.fd(), page * PAGE))).expect("it is free");
        }
        let target = BASE + 32 * PAGE;
        client.map((target, 4 * PAGE), WRITE, Some((other.fd(), 0))).expect("it is free");
        let data = pattern(3 * PAGE as usize);
        for (index, page) in [7, 3, 5].into_iter().enumerate() {
            guest.store(page * PAGE, &data[index * PAGE as usize..][..PAGE as usize]);
        }
        let len = data.len() - 300;
        let ended = copy(&mut client, &guest, (source + 100, target + 77), len as u32);
        assert_eq!(ended, (DONE, 0));
        assert_eq!(other.bytes(77, len), &data[100..][..len]);
        assert_eq!(other.bytes(0, 77), vec![0; 77]);
        assert_eq!(other.bytes(77 + len as u64, 100), vec![0; 100]);
        // The completion word: the descriptor's address, and the state.
        assert_eq!(guest.bytes(PAGE, 8), bytes![BASE | DONE]);
    }
}

#[test]
fn what_is_not_mapped_or_not_allowed_is_an_address_error() {
    let served = Served::simple();
    let mut client = ready(&served);
    let guest = Guest::sealed(8);
    let page = |number: u64| BASE + number * PAGE;
    client.map((BASE, 2 * PAGE), READ | WRITE, Some((guest.fd(), 0))).expect("free");
    client.map((page(2), PAGE), READ, Some((guest.fd(), 2 * PAGE))).expect("free");
    client.map((page(3), PAGE), WRITE, Some((guest.fd(), 3 * PAGE))).expect("free");
    client.map((page(4), PAGE), 0, Some((guest.fd(), 4 * PAGE))).expect("free");
    // Memory that came without a file, as the ROMs of a QEMU machine do.
    client.map((page(5), PAGE), READ | WRITE, None).expect("free");
    guest.store(2 * PAGE, &pattern(6 * PAGE as usize));
    let source = ChanErr::SOURCE_ADDRESS.bits();
    let target = ChanErr::DESTINATION_ADDRESS.bits();
    let (from, to) = (page(2), page(3));
    for (from_to, len, error) in [
        ((page(3), to), 64, source),
        ((page(4), to), 64, source),
        ((page(5), to), 64, source),
        ((page(6), to), 64, source),
        ((BASE - 64, to), 64, source),
        ((u64::MAX - 31, to), 64, source),
        ((from + PAGE - 32, to), 64, source),
        ((from, page(2)), 64, target),
        ((from, page(4)), 64, target),
        ((from, page(5)), 64, target),
        ((from, page(6)), 64, target),
        ((from, to + PAGE - 32), 64, target),
    ] {
        assert_eq!(copy(&mut client, &guest, from_to, len), (HALTED, error), "{from_to:x?}");
        reset(&mut client);
    }
    assert_eq!(copy(&mut client, &guest, (from, to), 4096), (DONE, 0));
    let after = pattern(6 * PAGE as usize);
    assert_eq!(guest.bytes(2 * PAGE, PAGE as usize), &after[..PAGE as usize]);
    assert_eq!(guest.bytes(4 * PAGE, 4 * PAGE as usize), &after[2 * PAGE as usize..]);
}

#[test]
fn chains_and_completion_words_need_memory_too() {
    let served = Served::simple();
    let mut client = ready(&served);
    let guest = Guest::sealed(2);
    client.map((BASE, 2 * PAGE), READ | WRITE, Some((guest.fd(), 0))).expect("free");
    client.start(0, BASE + 2 * PAGE, 1);
    assert_eq!(client.finish(0), (HALTED, ChanErr::CHAIN_ADDRESS.bits()));
    reset(&mut client);
    guest.copy(0, 0, (BASE + 512, BASE + 1024), 8, BASE - 64);
    client.start(0, BASE, 2);
    assert_eq!(client.finish(0), (HALTED, ChanErr::NEXT_ADDRESS.bits()));
    reset(&mut client);
    completions_at(&mut client, BASE - 8);
    let ended = copy(&mut client, &guest, (BASE + 512, BASE + 1024), 8);
    assert_eq!(ended, (HALTED, ChanErr::COMPLETION_ADDRESS.bits()));
}

#[test]
fn maps_that_make_no_sense_are_refused() {
    let served = Served::simple();
    let mut client = served.client();
    let guest = Guest::new(4);
    let file = |offset| Some((guest.fd(), offset));
    let rw = READ | WRITE;
    for (address, size, offset) in [
        (1, PAGE, 0),
        (0, PAGE - 1, 0),
        (0, 0, 0),
        (0, PAGE, 1),
        // Past the end of the file, of 2^64 in the file, of the address space.
        (0, 5 * PAGE, 0),
        (0, PAGE, 4 * PAGE),
        (0, PAGE, u64::MAX - PAGE + 1),
        (0, 0u64.wrapping_sub(PAGE), 0),
        (0u64.wrapping_sub(PAGE), 2 * PAGE, 0),
    ] {
        let refused = client.map((address, size), rw, file(offset));
        assert_eq!(refused, errno(Errno::INVAL), "{address:#x} {size:#x} {offset:#x}");
    }
    assert_eq!(client.map((0, PAGE), 4, file(0)), errno(Errno::INVAL));
    // The last page of the address space is one like any other.
    assert_eq!(client.map((0u64.wrapping_sub(PAGE), PAGE), rw, file(0)), Ok(()));
    // Any overlap with what is there.
    client.map((4 * PAGE, 4 * PAGE), rw, file(0)).expect("free");
    for (page, pages) in [(4, 4), (3, 2), (7, 1), (5, 2), (3, 6), (7, 4)] {
        let range = (page * PAGE, pages * PAGE);
        let source = (pages <= 4).then(|| file(0)).flatten();
        assert_eq!(client.map(range, rw, source), errno(Errno::EXIST), "{page} {pages}");
    }
    for page in [3, 8] {
        assert_eq!(client.map((page * PAGE, PAGE), rw, file(0)), Ok(()), "{page}");
    }
    // Two files for one region.
    let body = bytes![32_u32, rw, 0_u64, 64 * PAGE, PAGE];
    let two = client.request_with(DMA_MAP, &body, &[guest.fd(), guest.fd()]);
    assert_eq!(two, errno(Errno::INVAL));
}

#[test]
fn files_that_are_no_memory_are_refused() {
    let served = Served::simple();
    let mut client = served.client();
    let rw = READ | WRITE;
    let open = |path: &str, flags| rustix::fs::open(path, flags, Mode::empty()).expect("there");
    let (reader, writer) = pipe();
    let zero = open("/dev/zero", OFlags::RDWR);
    let folder = open("/proc/self", OFlags::RDONLY);
    let on_disk = File::open(std::env::current_exe().expect("a path")).expect("this program");
    for (what, file) in [
        ("pipe", reader.as_fd()),
        ("pipe", writer.as_fd()),
        ("device", zero.as_fd()),
        ("folder", folder.as_fd()),
        ("file on a disk", on_disk.as_fd()),
    ] {
        let refused = client.map((0, PAGE), READ, Some((file, 0)));
        assert_eq!(refused, errno(Errno::INVAL), "{what}");
    }
    // Memory, but not opened for what is asked.
    let guest = Guest::new(2);
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&guest.fd()));
    let read_only = open(&path, OFlags::RDONLY);
    assert_eq!(client.map((0, PAGE), rw, Some((read_only.as_fd(), 0))), errno(Errno::ACCESS));
    assert_eq!(client.map((0, PAGE), READ, Some((read_only.as_fd(), 0))), Ok(()));
    let write_only = open(&path, OFlags::WRONLY);
    let refused = client.map((PAGE, PAGE), WRITE, Some((write_only.as_fd(), 0)));
    assert_eq!(refused, errno(Errno::ACCESS));
    let name_only = open(&path, OFlags::PATH);
    assert!(client.map((PAGE, PAGE), READ, Some((name_only.as_fd(), 0))).is_err());
}

#[test]
fn memory_of_a_read_only_file_is_read() {
    let served = Served::simple();
    let mut client = ready(&served);
    let (guest, source) = (Guest::sealed(3), Guest::sealed(1));
    source.store(0, &pattern(4096));
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&source.fd()));
    let read_only = rustix::fs::open(path, OFlags::RDONLY, Mode::empty()).expect("there");
    client.map((BASE, 3 * PAGE), READ | WRITE, Some((guest.fd(), 0))).expect("free");
    let at = BASE + 8 * PAGE;
    client.map((at, PAGE), READ, Some((read_only.as_fd(), 0))).expect("free");
    assert_eq!(copy(&mut client, &guest, (at, BASE + 2 * PAGE), 4096), (DONE, 0));
    assert_eq!(guest.bytes(2 * PAGE, 4096), pattern(4096));
}

#[test]
fn a_file_that_its_owner_truncates_is_memory_that_fails() {
    let served = Served::simple();
    let mut client = ready(&served);
    let guest = Guest::sealed(3);
    let fickle = Guest::new(8);
    client.map((BASE, 3 * PAGE), READ | WRITE, Some((guest.fd(), 0))).expect("free");
    let at = BASE + 8 * PAGE;
    client.map((at, 8 * PAGE), READ | WRITE, Some((fickle.fd(), 0))).expect("free");
    fickle.store(0, &pattern(8 * PAGE as usize));
    fickle.truncate(4);
    let read = ChanErr::READ_DATA.bits();
    let write = ChanErr::WRITE_DATA.bits();
    let inside = BASE + 2 * PAGE;
    for (from_to, len, ended) in [
        ((at, inside), 4096, (DONE, 0)),
        ((at + 4 * PAGE, inside), 64, (HALTED, read)),
        ((at + 4 * PAGE - 32, inside), 64, (HALTED, read)),
        ((inside, at + 7 * PAGE), 64, (HALTED, write)),
        ((inside, at + 4 * PAGE - 32), 64, (HALTED, write)),
    ] {
        assert_eq!(copy(&mut client, &guest, from_to, len), ended, "{from_to:x?}");
        if ended.0 == HALTED {
            reset(&mut client);
        }
    }
    // Descriptors and completion words in what is gone.
    client.start(0, at + 5 * PAGE, 1);
    let (state, errors) = client.finish(0);
    assert!(state == HALTED && errors != 0, "{state} {errors:#x}");
    reset(&mut client);
    completions_at(&mut client, at + 6 * PAGE);
    let (state, errors) = copy(&mut client, &guest, (inside, inside + 512), 64);
    assert_eq!((state, errors), (HALTED, ChanErr::COMPLETION_ADDRESS.bits()));
    reset(&mut client);
    // It is back, and so is the memory; words in a file that is not sealed work too.
    fickle.truncate(8);
    completions_at(&mut client, at + 6 * PAGE);
    fickle.copy(5 * PAGE, COMPL, (inside, at + 7 * PAGE), 64, at + 5 * PAGE);
    client.start(0, at + 5 * PAGE, 1);
    assert_eq!(client.finish(0), (DONE, 0));
    assert_eq!(fickle.bytes(7 * PAGE, 64), guest.bytes(2 * PAGE, 64));
    assert_eq!(fickle.bytes(6 * PAGE, 8), bytes![(at + 5 * PAGE) | DONE]);
}

#[test]
fn a_file_that_grows_can_be_mapped_further() {
    let served = Served::simple();
    let mut client = ready(&served);
    let guest = Guest::new(3);
    client.map((BASE, 3 * PAGE), READ | WRITE, Some((guest.fd(), 0))).expect("free");
    guest.truncate(6);
    let at = BASE + 8 * PAGE;
    client.map((at, 3 * PAGE), READ | WRITE, Some((guest.fd(), 3 * PAGE))).expect("free");
    guest.store(2 * PAGE, &pattern(4096));
    assert_eq!(copy(&mut client, &guest, (BASE + 2 * PAGE, at + PAGE), 4096), (DONE, 0));
    assert_eq!(guest.bytes(4 * PAGE, 4096), pattern(4096));
}

#[test]
fn a_client_cannot_use_up_the_servers_mappings() {
    let served = Served::simple();
    let mut client = served.client();
    // Each time it has grown, it is mapped anew, while the regions keep the old mappings.
    let guest = Guest::new(1);
    let map = |client: &mut Client, page: u64| {
        guest.truncate(page + 1);
        client.map((page * PAGE, PAGE), READ, Some((guest.fd(), page * PAGE)))
    };
    for page in 0..1024 {
        assert_eq!(map(&mut client, page), Ok(()), "{page}");
    }
    assert_eq!(map(&mut client, 1024), errno(Errno::NOSPC));
    // Memory that is unmapped makes room.
    assert_eq!(client.unmap(0, PAGE), Ok(PAGE));
    assert_eq!(map(&mut client, 1024), Ok(()));
}

#[test]
fn unmapping_takes_whole_regions() {
    let served = Served::simple();
    let mut client = served.client();
    let guest = Guest::new(8);
    for page in [2, 3, 5] {
        client.map((page * PAGE, PAGE), READ, Some((guest.fd(), 0))).expect("free");
    }
    client.map((8 * PAGE, 4 * PAGE), READ, Some((guest.fd(), 0))).expect("free");
    // Only a part of a region: from the front, the back, the middle.
    for (page, pages) in [(7, 2), (11, 4), (9, 2), (9, 30), (0, 10)] {
        let refused = client.unmap(page * PAGE, pages * PAGE);
        assert_eq!(refused, errno(Errno::INVAL), "{page} {pages}");
    }
    for (address, size) in [(0, 0), (u64::MAX, 2), (PAGE, 0u64.wrapping_sub(PAGE) + 1)] {
        assert_eq!(client.unmap(address, size), errno(Errno::INVAL), "{address:#x} {size:#x}");
    }
    assert_eq!(client.unmap(0, 2 * PAGE), Ok(0));
    // As an IOMMU's invalidation of a large range.
    assert_eq!(client.unmap(0, 8 * PAGE), Ok(3 * PAGE));
    assert_eq!(client.unmap(8 * PAGE, 4 * PAGE), Ok(4 * PAGE));
    assert_eq!(client.unmap(8 * PAGE, 4 * PAGE), Ok(0));
    // All at once, which has no range.
    client.map((2 * PAGE, PAGE), READ, Some((guest.fd(), 0))).expect("free");
    client.map((9 * PAGE, 8 * PAGE), READ, Some((guest.fd(), 0))).expect("free");
    assert_eq!(client.unmap_with(2, PAGE, PAGE), errno(Errno::INVAL));
    assert_eq!(client.unmap_with(1, 2 * PAGE, PAGE), errno(Errno::INVAL));
    assert_eq!(client.unmap_with(2, 0, 0), Ok(9 * PAGE));
    assert_eq!(client.unmap_with(2, 0, 0), Ok(0));
    // The whole address space, which has no size either, in regions that have none to copy to.
    for half in [0, 1 << 63] {
        client.map((half, 1 << 63), READ, None).expect("free");
    }
    assert_eq!(client.unmap_with(2, 0, 0), Ok(u64::MAX));
}

#[test]
fn nothing_moves_in_memory_after_it_was_unmapped() {
    let served = Served::simple();
    let mut client = ready(&served);
    let pages = 256;
    let (guest, target) = (Guest::sealed(2 + pages), Guest::sealed(pages));
    let len = (pages * PAGE) as usize;
    client.map((BASE, (2 + pages) * PAGE), READ | WRITE, Some((guest.fd(), 0))).expect("free");
    guest.store(2 * PAGE, &vec![0xff; len]);
    let at = BASE << 4;
    for _ in 0..20 {
        client.map((at, pages * PAGE), WRITE, Some((target.fd(), 0))).expect("free");
        // A descriptor that is its own successor: the same copy, again and again.
        guest.copy(0, COMPL, (BASE + 2 * PAGE, at), len as u32, BASE);
        client.start(0, BASE, u16::MAX);
        // It has begun.
        let deadline = Instant::now() + SOON;
        while target.bytes(0, 1) != [0xff] {
            assert!(Instant::now() < deadline, "the copy begins");
        }
        assert_eq!(client.unmap(at, pages * PAGE), Ok(pages * PAGE));
        target.store(0, &vec![0; len]);
        assert_eq!(client.finish(0), (HALTED, ChanErr::DESTINATION_ADDRESS.bits()));
        assert!(
            target.bytes(0, len).iter().all(|byte| *byte == 0),
            "written after it was unmapped"
        );
        reset(&mut client);
    }
}

#[test]
fn an_iommu_may_map_page_by_page() {
    const REGIONS: u64 = 100_000;
    let served = Served::start(Config::default());
    let mut client = ready(&served);
    let guest = Guest::sealed(64);
    client.map((BASE, 4 * PAGE), READ | WRITE, Some((guest.fd(), 0))).expect("free");
    // From the top down, as Linux hands out addresses; every second page, so that none are adjacent.
    let top = BASE << 8;
    let address = |index: u64| top - 2 * index * PAGE;
    let page = |index: u64| 4 + index % 60;
    for index in 0..REGIONS {
        let body = bytes![32_u32, READ | WRITE, page(index) * PAGE, address(index), PAGE];
        let message = client.message(DMA_MAP, NO_REPLY, &body);
        client.send(&message, &[guest.fd()]);
    }
    guest.store(4 * PAGE, &pattern(60 * PAGE as usize));
    for index in [0, 1, 59_999, REGIONS - 1] {
        let ended = copy(&mut client, &guest, (address(index), BASE + 3 * PAGE), 4096);
        assert_eq!(ended, (DONE, 0), "{index}");
        let copied = guest.bytes(3 * PAGE, 4096) == guest.bytes(page(index) * PAGE, 4096);
        assert!(copied, "{index}");
    }
    let error = ChanErr::SOURCE_ADDRESS.bits();
    let between = (address(500) + PAGE, BASE + 3 * PAGE);
    assert_eq!(copy(&mut client, &guest, between, 64), (HALTED, error));
    let bottom = address(REGIONS - 1);
    assert_eq!(client.unmap(bottom, top + PAGE - bottom), Ok(REGIONS * PAGE));
    drop(client);
    assert_eq!(served.wait_for_end().0, 0, "none was refused");
}
