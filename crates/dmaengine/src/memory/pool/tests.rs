use super::*;

fn pool(slot_len: usize, count: usize) -> PacketPool {
    PacketPool::new(&Arena::new(1 << 20).unwrap(), slot_len, count).unwrap()
}

fn packet(pool: &PacketPool, bytes: &[u8]) -> PacketBuf {
    let mut packet = pool.take().unwrap();
    packet.as_mut()[..bytes.len()].copy_from_slice(bytes);
    packet.freeze(bytes.len())
}

#[test]
fn packets_are_distinct_and_come_back() {
    let pool = pool(100, 3);
    let packets: Vec<_> = [b"aaa", b"bbb", b"ccc"].map(|bytes| packet(&pool, bytes)).into();
    assert!(pool.take().is_none());
    assert_eq!(pool.available(), 0);
    assert_eq!(packets.iter().map(AsRef::as_ref).collect::<Vec<&[u8]>>(), [b"aaa", b"bbb", b"ccc"]);
    assert!(packets.iter().all(|packet| packet.as_ptr().addr().is_multiple_of(64)));
    drop(packets);
    assert_eq!(pool.available(), pool.capacity());
}

#[test]
fn the_warmest_buffer_is_reused() {
    let pool = pool(2048, 4);
    let (a, b) = (packet(&pool, b"a"), packet(&pool, b"b"));
    let address = a.as_ptr();
    drop(b);
    drop(a);
    assert_eq!(packet(&pool, b"c").as_ptr(), address);
}

#[test]
fn a_slot_returns_with_its_last_handle() {
    let pool = pool(2048, 1);
    let first = packet(&pool, b"0123456789");
    assert_eq!(first.truesize(), 2048);
    let mut rest = first.slice(2..8);
    let clone = first.clone();
    drop(first);
    let front = rest.split_to(2);
    rest.advance(1);
    assert_eq!(
        (&front[..], &rest[..], &rest.slice(1..3)[..]),
        (&b"23"[..], &b"567"[..], &b"67"[..])
    );
    assert_eq!(rest.truesize(), 2048);
    drop((rest, clone));
    assert_eq!(pool.available(), 0);
    drop(front);
    assert_eq!(pool.available(), 1);
}

#[test]
fn only_a_packet_with_one_handle_is_made_writable_again() {
    let pool = pool(64, 1);
    let packet = packet(&pool, b"once");
    let part = packet.slice(1..2);
    let packet = packet.try_into_mut().expect_err("somebody may read it");
    assert_eq!((&packet[..], pool.available()), (&b"once"[..], 0));
    drop(part);
    let mut writable = packet.try_into_mut().expect("nobody else has it");
    assert_eq!((writable.as_mut().len(), pool.available()), (64, 0));
    writable.as_mut()[..5].copy_from_slice(b"again");
    let packet = writable.freeze(5);
    assert_eq!(&packet[..], b"again");
    drop(packet);
    assert_eq!(pool.available(), 1);
}

#[test]
fn buffers_outlive_pool_and_arena() {
    let pool = pool(64, 2);
    let packet = packet(&pool, b"still here");
    let unfrozen = pool.take();
    drop(pool);
    assert_eq!(&packet[..], b"still here");
    drop(packet);
    drop(unfrozen);
}

#[test]
fn the_arena_gets_the_memory_back() {
    let arena = Arena::new(1 << 16).unwrap();
    let pool = PacketPool::new(&arena, 1 << 14, 4).unwrap();
    let packet = packet(&pool, b"x");
    assert!(matches!(PacketPool::new(&arena, 1, 1), Err(ArenaFull { largest: 0, .. })));
    let other = pool.clone();
    drop(pool);
    drop(packet);
    assert!(arena.alloc(1).is_err());
    drop(other);
    assert_eq!(arena.alloc(1 << 16).unwrap().len(), 1 << 16);
}

#[test]
fn an_empty_pool_gives_nothing() {
    let pool = pool(2048, 0);
    assert!(pool.take().is_none());
    assert_eq!((pool.available(), pool.capacity()), (0, 0));
}

#[test]
fn bad_ranges_panic_and_leak_nothing() {
    let pool = pool(64, 1);
    let long = pool.take().unwrap();
    assert!(std::panic::catch_unwind(|| long.freeze(65)).is_err());
    assert_eq!(pool.available(), 1);
    let packet = packet(&pool, b"abc");
    #[expect(clippy::reversed_empty_ranges, reason = "that is the bad input")]
    for range in [0..4, 4..4, 2..1, 0..usize::MAX] {
        let slice = std::panic::AssertUnwindSafe(|| packet.slice(range.clone()));
        assert!(std::panic::catch_unwind(slice).is_err(), "{range:?}");
    }
    drop(packet);
    assert_eq!(pool.available(), 1);
}

#[test]
fn handles_may_be_dropped_on_any_thread() {
    let pool = pool(64, 16);
    let rounds = if cfg!(miri) { 50 } else { 20_000 };
    std::thread::scope(|scope| {
        for thread in 0u8..3 {
            let (to, from) = std::sync::mpsc::sync_channel::<(PacketBuf, u8)>(4);
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..rounds {
                    let stamp = thread.wrapping_mul(85) ^ (round as u8);
                    // The other threads' buffers come back sooner or later.
                    let mut buffer = loop {
                        match pool.take() {
                            Some(buffer) => break buffer,
                            None => std::thread::yield_now(),
                        }
                    };
                    buffer.as_mut().fill(stamp);
                    let packet = buffer.freeze(64);
                    to.send((packet.clone(), stamp)).unwrap();
                    assert!(packet.iter().all(|&byte| byte == stamp));
                }
            });
            scope.spawn(move || {
                for (packet, stamp) in from {
                    assert!(packet.iter().all(|&byte| byte == stamp));
                }
            });
        }
    });
    assert_eq!(pool.available(), 16);
}
