//! Which memory an engine may write, and why a program's other memory is not registered for it.
//!
//! # Model
//!
//! | memory | engines of process addresses | engines with IOVAs |
//! | --- | --- | --- |
//! | an [`Arena`](crate::Arena)'s: packets, [`DmaBuf`](crate::DmaBuf) | reach it | reach it, when it was mapped |
//! | large blocks of the [`Heap`](crate::Heap): `Vec`, `Box`, `BufReader` | reach it | reach it, when its arena was mapped |
//! | a program's own that [never changes](crate::Arena::permanent): statics, lasting mappings | reach it | reach it, when it was mapped |
//! | all else: stacks, other mappings, other allocators' blocks | reach it | refuse it: [`Unreachable`](crate::SubmitError::Unreachable), and the CPU copies |
//!
//! An engine of process addresses (`threads`, hardware with shared virtual memory) writes as the CPU
//! does, through the process's page tables at that moment. An engine with IOVAs (I/OAT) writes to
//! pages that the IOMMU was told, and that are pinned so that they stay. Whatever becomes of the
//! program's mapping, the engine writes *those pages*. If the program's address is by then another
//! page's, bytes are lost, and if the old page is mapped elsewhere, others are overwritten. So memory
//! may only be a target while its pages are known to be the ones that the IOMMU has.
//!
//! Of the first three rows that is known by ownership: nobody but us unmaps an arena, and we do not
//! while an engine can reach it; a heap's block belongs to the allocator; permanent memory has a
//! promise in `unsafe`. Fork is the one change that nobody in the process asks for, and each row has
//! its rule: arenas are kept out of children, and pinned pages of a heap stay with the parent (see
//! [`Heap`](crate::Heap#forked-children)).
//!
//! # Why there is no cache of registrations for the rest
//!
//! Pinning for each call and unpinning after it is right (`NET_DMA` did so), and costs more than the
//! copy. A cache keeps memory pinned after the call, in the hope of the same address again. Then the
//! program may unmap it, which it need tell nobody, and a cache must know *before* the addresses
//! are anything else's. The moments at which one can know:
//!
//! | by | it misses | |
//! | --- | --- | --- |
//! | `userfaultfd`, `UFFD_EVENT_UNMAP` and `UFFD_EVENT_REMAP` | everything between the unmapping and its event | the kernel unmaps, lets go of the lock, and then queues the event. `munmap` waits for the event to be read; another thread's `mmap` does not, gets those addresses, and a receive call into them finds the stale entry. To read all pending events first does not help: for some instructions there is none yet |
//! | `userfaultfd`, `UFFD_EVENT_REMOVE` | what is registered again between the event and the effect | `madvise` waits for the event, and drops the pages after it was read: a call in between may pin the old pages anew |
//! | wrapping `munmap`, `mremap`, `madvise`, `mmap` in the C library | calls from inside of it (thread stacks, `free`), and system calls made without it | and fork by `clone` |
//! | `seccomp` or `PR_SET_SYSCALL_USER_DISPATCH` | nothing in this process | the filter stays for what the program executes, where nobody answers it; or each thread pays a signal for each of its system calls |
//! | other processes' work on a shared file: truncation, holes | all of the above miss it | no mapping of this process is changed by anybody in it |
//! | comparing after the copy | the damage is done | it finds what is lost, not what was overwritten elsewhere |
//! | the page tables themselves: the page's number in `/proc/self/pagemap`, before each copy, against that of the pinned page, which no other page can have meanwhile | nothing | it takes `CAP_SYS_ADMIN`, and 1.3 µs for the 16 pages of 64 KiB, where the copy takes 6.5 µs (Linux 6.18 in a virtual machine, payload not in the cache) |
//!
//! All but the last have a race; a lost byte in a million calls is a lost byte, and TCP has
//! acknowledged it. The last would be sound: a mapping must not change *during* a receive call in any
//! case, so one look at its begin is enough. But it is for root, and takes a fifth of the time that
//! there is to be saved. So there is no cache. Other memory is copied to by the CPU, which is never an
//! error, and is counted as [`FallbackCause::Unreachable`](crate::FallbackCause::Unreachable).
//!
//! Inside the kernel it would be simple: its MMU notifiers are called before the effect. No interface
//! gives them to a process.
//!
//! The tests show it on any machine: that pinned pages go stale in each of these ways, and that an
//! address is another mapping's while the event of its unmapping is unread (`tests/heap`).
