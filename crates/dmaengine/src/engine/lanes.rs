use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::RequestError;

/// Which channels of a device are handed out.
#[derive(Debug)]
pub(super) struct Lanes(Box<[Arc<AtomicBool>]>);

/// A channel's share in [`Lanes`]: dropping it makes the channel free again.
#[derive(Debug)]
pub(super) struct Lane(Arc<AtomicBool>);

impl Lanes {
    pub(super) fn new(channels: usize) -> Self {
        Self((0..channels).map(|_| Arc::default()).collect())
    }

    /// Takes channel `index`.
    pub(super) fn take(&self, index: usize) -> Result<Lane, RequestError> {
        let channels = self.0.len();
        let in_use = self.0.get(index).ok_or(RequestError::NoSuchChannel { index, channels })?;
        // Acquire: pairs with the release in `Lane`'s drop: what the last user did comes before.
        if in_use.swap(true, Ordering::Acquire) {
            return Err(RequestError::InUse);
        }
        Ok(Lane(Arc::clone(in_use)))
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Release: see `Lanes::take`.
        self.0.store(false, Ordering::Release);
    }
}
