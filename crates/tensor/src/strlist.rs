//! A list of texts in two allocations: all characters in one string, and where each text ends.
//!
//! Made for vocabularies of hundreds of thousands of short entries. Deliberately absent: changing an entry.

/// An append-only list of texts.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StrList {
    text: String,
    ends: Vec<usize>,
}

impl StrList {
    /// An empty list; allocates nothing.
    pub const fn new() -> Self {
        Self { text: String::new(), ends: Vec::new() }
    }

    /// An empty list with room for `texts` entries of `bytes` in total.
    pub fn with_capacity(texts: usize, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), ends: Vec::with_capacity(texts) }
    }

    /// Appends a text.
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len());
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The text at `index`, when there is one.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.text.get(start..end)
    }

    /// The texts in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        (0..self.len()).map(|index| self.get(index).unwrap_or_default())
    }
}

impl<S: AsRef<str>> FromIterator<S> for StrList {
    fn from_iter<I: IntoIterator<Item = S>>(texts: I) -> Self {
        let mut list = Self::new();
        texts.into_iter().for_each(|text| list.push(text.as_ref()));
        list
    }
}

impl std::fmt::Debug for StrList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_was_pushed() {
        let texts = ["", "ab", "é", "", "▁the"];
        let list: StrList = texts.iter().collect();
        assert_eq!(list.iter().collect::<Vec<_>>(), texts);
        assert_eq!((list.len(), list.get(5), list.get(2)), (5, None, Some("é")));
        assert_eq!(format!("{list:?}"), format!("{texts:?}"));
    }
}
