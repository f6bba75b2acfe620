//! The ways an interrupt takes to the client: its eventfds.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl, fstat},
    io::Errno,
};

/// Kinds of interrupts that VFIO numbers for PCI: INTA, MSI, MSI-X, and two that this device does
/// not have (error, and the request to give it back).
pub(super) const KINDS: u32 = 5;
const INTX: u32 = 0;
const MSI: u32 = 1;
const MSIX: u32 = 2;

/// `VFIO_IRQ_INFO_*`: signalled by eventfd; may be masked; is masked by being signalled; to be set up
/// as a whole.
const INFO_EVENTFD: u32 = 1 << 0;
const INFO_MASKABLE: u32 = 1 << 1;
const INFO_AUTOMASKED: u32 = 1 << 2;
const INFO_NORESIZE: u32 = 1 << 3;

/// `VFIO_IRQ_SET_*`: what comes with the request, and what it wants.
const SET_DATA_NONE: u32 = 1 << 0;
const SET_DATA_BOOL: u32 = 1 << 1;
const SET_DATA_EVENTFD: u32 = 1 << 2;
const SET_ACTION_MASK: u32 = 1 << 3;
const SET_ACTION_UNMASK: u32 = 1 << 4;
const SET_ACTION_TRIGGER: u32 = 1 << 5;

/// The client's eventfds, and the state of INTA.
#[derive(Debug)]
pub(super) struct Interrupts {
    intx: [Option<OwnedFd>; 1],
    msi: [Option<OwnedFd>; 1],
    msix: Vec<Option<OwnedFd>>,
    /// INTA as the device drives it.
    level: bool,
    /// INTA was signalled, or masked, and not unmasked since.
    masked: bool,
}

impl Interrupts {
    /// None is connected yet.
    pub(super) fn new(msix_vectors: usize) -> Self {
        Self {
            intx: [None],
            msi: [None],
            msix: std::iter::repeat_with(|| None).take(msix_vectors).collect(),
            level: false,
            masked: false,
        }
    }

    /// Flags and number of the interrupts of a kind, for the client.
    pub(super) fn info(&self, kind: u32) -> Result<(u32, u32), Errno> {
        Ok(match kind {
            INTX => (INFO_EVENTFD | INFO_MASKABLE | INFO_AUTOMASKED, 1),
            MSI => (INFO_EVENTFD | INFO_NORESIZE, 1),
            MSIX => (INFO_EVENTFD | INFO_NORESIZE, self.msix.len() as u32),
            _ if kind < KINDS => (0, 0),
            _ => return Err(Errno::INVAL),
        })
    }

    /// Does what a client asks for with `SET_IRQS`.
    ///
    /// # Errors
    ///
    /// What to reply. Nothing has changed then.
    pub(super) fn set(
        &mut self,
        flags: u32,
        kind: u32,
        (start, count): (u32, u32),
        data: &[u8],
        files: Vec<OwnedFd>,
    ) -> Result<(), Errno> {
        const ACTIONS: u32 = SET_ACTION_MASK | SET_ACTION_UNMASK | SET_ACTION_TRIGGER;
        let vectors: &mut [Option<OwnedFd>] = match kind {
            INTX => &mut self.intx,
            MSI => &mut self.msi,
            MSIX => &mut self.msix,
            _ => return Err(Errno::INVAL),
        };
        let end = start.checked_add(count).ok_or(Errno::INVAL)? as usize;
        let all = vectors.len();
        let chosen = vectors.get_mut(start as usize..end).ok_or(Errno::INVAL)?;
        // Which of the chosen ones are meant.
        let meant: Vec<bool> = match flags & !ACTIONS {
            SET_DATA_NONE | SET_DATA_EVENTFD => vec![true; chosen.len()],
            SET_DATA_BOOL if data.len() == chosen.len() => data.iter().map(|b| *b != 0).collect(),
            _ => return Err(Errno::INVAL),
        };
        match (flags & ACTIONS, flags & !ACTIONS) {
            (SET_ACTION_TRIGGER, SET_DATA_EVENTFD) => {
                connect(chosen, files)?;
                if kind == INTX {
                    self.masked = false;
                    self.signal_level();
                }
            }
            (SET_ACTION_TRIGGER, SET_DATA_NONE) if count == 0 && start == 0 => {
                vectors.iter_mut().for_each(|vector| *vector = None);
            }
            (SET_ACTION_TRIGGER, _) => {
                for (vector, _) in chosen.iter().zip(meant).filter(|(_, meant)| *meant) {
                    signal(vector.as_ref());
                }
            }
            (SET_ACTION_MASK, SET_DATA_NONE | SET_DATA_BOOL) if kind == INTX && all == end => {
                self.masked |= meant.contains(&true);
            }
            (SET_ACTION_UNMASK, SET_DATA_NONE | SET_DATA_BOOL) if kind == INTX && all == end => {
                self.masked &= !meant.contains(&true);
                self.signal_level();
            }
            _ => return Err(Errno::INVAL),
        }
        Ok(())
    }

    /// Raises the only MSI.
    pub(super) fn raise_msi(&self) {
        signal(self.msi[0].as_ref());
    }

    /// Raises an MSI-X vector.
    pub(super) fn raise_msix(&self, vector: usize) {
        signal(self.msix.get(vector).and_then(Option::as_ref));
    }

    /// Drives INTA. While it is high it is signalled once for each time that it is unmasked.
    pub(super) fn drive_intx(&mut self, level: bool) {
        self.level = level;
        self.signal_level();
    }

    fn signal_level(&mut self) {
        if self.level && !self.masked && self.intx[0].is_some() {
            self.masked = true;
            signal(self.intx[0].as_ref());
        }
    }
}

/// Connects the vectors to files; with none at all it disconnects them.
fn connect(vectors: &mut [Option<OwnedFd>], files: Vec<OwnedFd>) -> Result<(), Errno> {
    if files.is_empty() {
        vectors.iter_mut().for_each(|vector| *vector = None);
        return Ok(());
    }
    if files.len() != vectors.len() {
        return Err(Errno::INVAL);
    }
    files.iter().try_for_each(check_eventfd)?;
    for (vector, file) in vectors.iter_mut().zip(files) {
        *vector = Some(file);
    }
    Ok(())
}

/// Sees to it that a write will not block: the device must not wait for its driver. The kernel
/// signals eventfds in the same spirit.
fn check_eventfd(file: &OwnedFd) -> Result<(), Errno> {
    // Files without a name, as eventfds are, have no type. Of that sort only eventfds can be
    // written to; pipes and sockets, which may block in the middle, have types.
    const TYPE: u32 = 0o170_000;
    if fstat(file)?.st_mode & TYPE != 0 {
        return Err(Errno::INVAL);
    }
    let flags = fcntl_getfl(file)?;
    fcntl_setfl(file, flags | OFlags::NONBLOCK)
}

fn signal(vector: Option<&OwnedFd>) {
    if let Some(file) = vector {
        // It fails if the counter is full, and then the file is readable already; or if the client
        // has sent something that is no eventfd, and then it gets no interrupts.
        let _ = rustix::io::write(file.as_fd(), &1_u64.to_ne_bytes());
    }
}
