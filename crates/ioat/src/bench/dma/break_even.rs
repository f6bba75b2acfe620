use serde::Serialize;

/// From which size on the caller pays less with an engine than by copying itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "found", rename_all = "snake_case")]
pub enum BreakEven {
    /// At every size that was measured: it lies at the smallest of them or below.
    AtMost {
        /// The smallest size measured.
        bytes: f64,
    },
    /// Here, by interpolation between two sizes that were measured.
    At {
        /// The size.
        bytes: f64,
    },
    /// Not even at the greatest size measured.
    Above {
        /// The greatest size measured.
        bytes: f64,
    },
}

impl BreakEven {
    /// The size in bytes, if it lies within what was measured.
    #[must_use]
    pub const fn within(self) -> Option<f64> {
        match self {
            Self::At { bytes } => Some(bytes),
            Self::AtMost { .. } | Self::Above { .. } => None,
        }
    }
}

/// What both sides cost the caller at one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Compared {
    /// The size in bytes.
    pub(super) size: usize,
    /// With the engine, in nanoseconds.
    pub(super) engine_ns: f64,
    /// Without, in nanoseconds.
    pub(super) memcpy_ns: f64,
}

impl Compared {
    /// Negative where the engine pays.
    fn loss(&self) -> f64 {
        self.engine_ns - self.memcpy_ns
    }
}

/// Where the engine begins to pay for good: above the greatest measured size at which it does not.
/// In between the costs are taken to be linear in the size. `None` without a measured size.
#[must_use]
pub(super) fn break_even(mut measured: Vec<Compared>) -> Option<BreakEven> {
    measured.sort_by_key(|compared| compared.size);
    let loses = measured.iter().rposition(|compared| compared.loss() >= 0.0);
    let Some(below) = loses else {
        return measured.first().map(|least| BreakEven::AtMost { bytes: least.size as f64 });
    };
    let (last, next) = (measured[below], measured.get(below + 1));
    Some(next.map_or(BreakEven::Above { bytes: last.size as f64 }, |next| {
        let part = last.loss() / (last.loss() - next.loss());
        let (from, to) = (last.size as f64, next.size as f64);
        BreakEven::At { bytes: from + part * (to - from) }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of sizes, the engine's cost and that of copying.
    fn of(measured: &[(usize, f64, f64)]) -> Option<BreakEven> {
        let compared = |&(size, engine_ns, memcpy_ns)| Compared { size, engine_ns, memcpy_ns };
        break_even(measured.iter().map(compared).collect())
    }

    #[test]
    fn it_lies_where_the_lines_cross() {
        // 50 ns, against a tenth of a nanosecond for each byte.
        let measured = [(100, 50.0, 10.0), (300, 50.0, 30.0), (900, 50.0, 90.0)];
        assert_eq!(of(&measured), Some(BreakEven::At { bytes: 500.0 }));
        let mut shuffled = measured;
        shuffled.reverse();
        assert_eq!(of(&shuffled), of(&measured));
        assert_eq!(of(&measured).unwrap().within(), Some(500.0));
    }

    #[test]
    fn it_is_where_the_engine_pays_from_then_on() {
        let measured = [
            (64, 1.0, 2.0),
            (128, 4.0, 3.0),
            (256, 4.0, 6.0),
            (512, 13.0, 12.0),
            (1024, 14.0, 15.0),
        ];
        assert_eq!(of(&measured), Some(BreakEven::At { bytes: 768.0 }));
        // Equal is not less.
        assert_eq!(of(&[(64, 2.0, 2.0), (128, 2.0, 4.0)]), Some(BreakEven::At { bytes: 64.0 }));
    }

    #[test]
    fn it_may_lie_outside() {
        let below = of(&[(64, 1.0, 2.0), (128, 1.0, 3.0)]);
        assert_eq!(below, Some(BreakEven::AtMost { bytes: 64.0 }));
        let above = of(&[(64, 5.0, 2.0), (128, 5.0, 3.0)]);
        assert_eq!(above, Some(BreakEven::Above { bytes: 128.0 }));
        assert_eq!((below.unwrap().within(), above.unwrap().within()), (None, None));
        assert_eq!(of(&[]), None);
    }
}
