use std::sync::Barrier;

use super::*;

/// As the global allocator is called.
fn alloc(heap: &Heap, size: usize, align: usize) -> (*mut u8, Layout) {
    let layout = Layout::from_size_align(size, align).unwrap();
    // SAFETY: the size is not 0.
    let block = unsafe { heap.alloc(layout) };
    assert!(!block.is_null() && block.addr().is_multiple_of(align));
    (block, layout)
}

fn free(heap: &Heap, (block, layout): (*mut u8, Layout)) {
    // SAFETY: it came from there, and each test frees its blocks once.
    unsafe { heap.dealloc(block, layout) };
}

#[test]
fn large_blocks_are_in_the_arena_and_others_are_not() {
    static HEAP: Heap = Heap::with_capacity(4 << 20);
    assert_eq!((HEAP.used(), HEAP.overflowed()), (0, 0));
    let arena = HEAP.arena().unwrap();
    assert_eq!(arena.len(), 4 << 20);
    assert!(arena.is_inherited() && arena.alloc(1).is_err());
    let last = Heap::LARGE - 1;
    for (size, align, inside) in [
        (1, 1, false),
        (last, 1, false),
        (last, 1 << 16, false),
        (Heap::LARGE, 1, true),
        (10_000, 1 << 16, true),
        (10_000, 2 << 20, true),
        (1 << 20, 64, true),
        ((1 << 20) + 1, 64, false),
        (10_000, 4 << 20, false),
    ] {
        let (block, layout) = alloc(&HEAP, size, align);
        assert_eq!(arena.contains(block, size), inside, "{layout:?}");
        // SAFETY: a block of our own.
        unsafe { block.write_bytes(0xa5, size) };
        free(&HEAP, (block, layout));
    }
    assert_eq!((HEAP.used(), HEAP.overflowed()), (0, 0));
}

#[test]
fn what_has_no_room_is_the_systems_and_counted() {
    static HEAP: Heap = Heap::with_capacity(2 << 20);
    let arena = HEAP.arena().unwrap();
    let blocks: Vec<_> = (0..10).map(|_| alloc(&HEAP, 500_000, 8)).collect();
    let inside = blocks.iter().filter(|(block, _)| arena.contains(*block, 500_000)).count();
    assert_eq!((inside, HEAP.overflowed()), (4, 6));
    assert!(HEAP.used() >= 2_000_000);
    blocks.into_iter().for_each(|block| free(&HEAP, block));
    assert_eq!(HEAP.used(), 0);
}

#[test]
fn without_capacity_there_is_no_arena() {
    static HEAP: Heap = Heap::with_capacity(0);
    free(&HEAP, alloc(&HEAP, 500_000, 8));
    assert!(matches!(HEAP.arena(), Err(ArenaError::Length { len: 0 })));
    assert_eq!(HEAP.overflowed(), 0);
}

#[test]
#[cfg_attr(miri, ignore = "Miri's own memory is the limit")]
fn more_than_the_system_has_is_none() {
    static HEAP: Heap = Heap::with_capacity(isize::MAX as usize);
    free(&HEAP, alloc(&HEAP, 10_000, 8));
    assert_eq!(HEAP.overflowed(), 1);
    assert!(matches!(HEAP.arena(), Err(ArenaError::Map(_))));
}

#[test]
fn zeroed_is_zero_also_where_others_were() {
    static HEAP: Heap = Heap::with_capacity(2 << 20);
    let layout = Layout::from_size_align(100_000, 8).unwrap();
    let dirty = alloc(&HEAP, 50_000, 8);
    // SAFETY: a block of our own.
    unsafe { dirty.0.write_bytes(0xff, 50_000) };
    free(&HEAP, dirty);
    // SAFETY: the size is not 0.
    let block = unsafe { HEAP.alloc_zeroed(layout) };
    assert_eq!(block, dirty.0, "the test wants a block that is dirty in front and new behind");
    // SAFETY: all of it is initialised, and nobody writes it.
    assert!(unsafe { std::slice::from_raw_parts(block, 100_000) }.iter().all(|byte| *byte == 0));
    free(&HEAP, (block, layout));
}

/// Grows and shrinks a block through all kinds of memory; its bytes stay.
#[test]
fn realloc_keeps_the_bytes_wherever_it_moves_them() {
    static HEAP: Heap = Heap::with_capacity(2 << 20);
    let arena = HEAP.arena().unwrap();
    // Miri takes a while for each byte.
    let some = |len: usize| (0..len).step_by(if cfg!(miri) { 997 } else { 1 });
    let (mut block, mut layout) = alloc(&HEAP, 100, 16);
    let byte = |index: usize| (index * 7 + index / 251) as u8;
    for index in some(100) {
        // SAFETY: within the block.
        unsafe { block.add(index).write(byte(index)) };
    }
    let steps = [
        (5000, true),
        (5100, true),
        (9000, true),
        (4097, true),
        (300_000, true),
        (600_000, false),
        (700_000, false),
        (400_000, false),
        (3000, false),
        (4096, true),
        (4095, false),
    ];
    for (size, inside) in steps {
        // SAFETY: it came from there with this layout.
        block = unsafe { HEAP.realloc(block, layout, size) };
        assert!(!block.is_null());
        for index in some(size.min(layout.size())) {
            // SAFETY: within the block, and written.
            assert_eq!(unsafe { block.add(index).read() }, byte(index), "{layout:?} to {size}");
        }
        for index in some(size) {
            // SAFETY: within the block.
            unsafe { block.add(index).write(byte(index)) };
        }
        layout = Layout::from_size_align(size, 16).unwrap();
        assert_eq!(arena.contains(block, size), inside, "{size}");
    }
    free(&HEAP, (block, layout));
    assert_eq!(HEAP.used(), 0);
}

#[test]
fn threads_that_come_first_at_once_share_one_arena() {
    static HEAP: Heap = Heap::with_capacity(4 << 20);
    let barrier = Barrier::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                for round in 0..if cfg!(miri) { 5 } else { 2000 } {
                    let size = 4096 + (round * 977) % 60_000;
                    let (block, layout) = alloc(&HEAP, size, 8);
                    assert!(HEAP.arena().unwrap().contains(block, size));
                    // SAFETY: a block of our own; all of it is written before it is read.
                    let bytes = unsafe {
                        block.write_bytes(thread, size);
                        std::slice::from_raw_parts(block, size)
                    };
                    assert!(bytes.iter().all(|byte| *byte == thread), "somebody else writes here");
                    free(&HEAP, (block, layout));
                }
            });
        }
    });
    assert_eq!(HEAP.used(), 0);
}
