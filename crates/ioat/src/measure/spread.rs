use serde::{Serialize, Serializer, ser::SerializeStruct};

/// A median with what is around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The value in the middle; of an even number of values, half-way between the two.
    pub median: f64,
    /// The least value.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Spread {
    /// Of at least one value.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        assert!(!values.is_empty(), "nothing was measured");
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Self { median, least: values[0], greatest: values[values.len() - 1] }
    }

    /// As text: the median, and the others in parentheses, with this many decimal digits.
    #[must_use]
    pub fn show(&self, digits: usize) -> String {
        let Self { median, least, greatest } = self;
        format!("{median:.digits$} ({least:.digits$} .. {greatest:.digits$})")
    }

    /// For fields of which only the median is printed.
    ///
    /// # Errors
    ///
    /// What the serializer returns.
    pub fn serialize_median<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.median)
    }
}

/// A figure with one value for each round, in the order of the rounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds the value of the next round.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// All values.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    /// Median, least and greatest.
    ///
    /// # Panics
    ///
    /// If there is no value.
    #[must_use]
    pub fn spread(&self) -> Spread {
        Spread::of(self.0.iter().copied())
    }

    /// The median.
    ///
    /// # Panics
    ///
    /// If there is no value.
    #[must_use]
    pub fn median(&self) -> f64 {
        self.spread().median
    }

    /// Round by round, how many times `other` this is: what disturbed a round disturbed both.
    #[must_use]
    pub fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect())
    }
}

/// `{"median":…,"least":…,"greatest":…,"samples":[…]}`
impl Serialize for Samples {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Spread { median, least, greatest } = self.spread();
        let mut object = serializer.serialize_struct("Samples", 4)?;
        object.serialize_field("median", &median)?;
        object.serialize_field("least", &least)?;
        object.serialize_field("greatest", &greatest)?;
        object.serialize_field("samples", &self.0)?;
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Spread::of([3.0]).median, 3.0);
        let spread = Spread::of([5.0, 1.0, 2.0]);
        assert_eq!((spread.least, spread.median, spread.greatest), (1.0, 2.0, 5.0));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 9.0]).median, 3.0);
        assert_eq!(spread.show(1), "2.0 (1.0 .. 5.0)");
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let mut ours = Samples::default();
        let mut theirs = Samples::default();
        for (a, b) in [(10.0, 5.0), (90.0, 30.0), (2.0, 4.0)] {
            ours.push(a);
            theirs.push(b);
        }
        assert_eq!(ours.over(&theirs).values(), [2.0, 3.0, 0.5]);
        assert_eq!(ours.over(&theirs).median(), 2.0);
        let json = serde_json::to_value(&ours).unwrap();
        assert_eq!(
            json,
            serde_json::json!(
                {"median": 10.0, "least": 2.0, "greatest": 90.0, "samples": [10.0, 90.0, 2.0]}
            )
        );
    }
}
