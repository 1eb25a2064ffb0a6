//! Stop strings over a stream of text.
//!
//! Contract: text is handed on as soon as no stop string can begin inside it, and never later. The stop string
//! that *ends* first wins; of two that end at the same place the one that begins first (the longer) wins, and
//! everything from its beginning on is swallowed. Matching is by bytes, so it does not depend on how the stream
//! was cut; what is handed on is always whole characters.
//! Absent on purpose: regular expressions and stop tokens (the caller compares token ids).

/// What a call to [`StopMatcher::push`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Text that is certainly outside every stop string, in stream order.
    pub text: String,
    /// Index, in the list given to [`StopMatcher::new`], of the stop string that was completed.
    pub stopped: Option<usize>,
}

/// Finds the first of several stop strings in text that arrives piece by piece.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    stops: Vec<Needle>,
    held: String,
    stopped: Option<usize>,
}

/// One stop string as a Knuth-Morris-Pratt automaton.
#[derive(Clone, Debug)]
struct Needle {
    index: usize,
    bytes: Vec<u8>,
    /// `fail[i]`: length of the longest proper border of the first `i + 1` bytes.
    fail: Vec<usize>,
    matched: usize,
}

impl StopMatcher {
    /// Watches for `stops`; empty strings are ignored.
    pub fn new<S: AsRef<str>>(stops: &[S]) -> Self {
        let needles = stops.iter().enumerate().filter(|(_, stop)| !stop.as_ref().is_empty());
        let stops = needles.map(|(index, stop)| Needle::new(index, stop.as_ref())).collect();
        Self { stops, held: String::new(), stopped: None }
    }

    /// Takes the next piece. After a stop string was found everything further is swallowed.
    pub fn push(&mut self, piece: &str) -> Step {
        if self.stopped.is_some() {
            return Step { text: String::new(), stopped: self.stopped };
        }
        let before = self.held.len();
        self.held.push_str(piece);
        for at in before..self.held.len() {
            let byte = self.held.as_bytes()[at];
            let done = self.stops.iter_mut().filter_map(|stop| stop.step(byte));
            if let Some((len, index)) = done.max_by_key(|&(len, index)| (len, std::cmp::Reverse(index))) {
                self.held.truncate(at + 1 - len);
                self.stopped = Some(index);
                return Step { text: std::mem::take(&mut self.held), stopped: self.stopped };
            }
        }
        let keep = self.stops.iter().map(|stop| stop.matched).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Step { text: std::mem::replace(&mut self.held, rest), stopped: None }
    }

    /// Ends the stream: hands out what was held back as a possible beginning of a stop string.
    pub fn finish(&mut self) -> String {
        self.stops.iter_mut().for_each(|stop| stop.matched = 0);
        std::mem::take(&mut self.held)
    }

    /// The stop string that ended the stream, if one did.
    pub fn stopped(&self) -> Option<usize> {
        self.stopped
    }
}

impl Needle {
    fn new(index: usize, text: &str) -> Self {
        let bytes = text.as_bytes().to_vec();
        let mut fail = vec![0; bytes.len()];
        let mut border = 0;
        for i in 1..bytes.len() {
            while border > 0 && bytes[i] != bytes[border] {
                border = fail[border - 1];
            }
            border += usize::from(bytes[i] == bytes[border]);
            fail[i] = border;
        }
        Self { index, bytes, fail, matched: 0 }
    }

    /// Reads one byte; (length, index) once the whole string has been read.
    fn step(&mut self, byte: u8) -> Option<(usize, usize)> {
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.fail[self.matched - 1];
        }
        self.matched += usize::from(self.bytes[self.matched] == byte);
        (self.matched == self.bytes.len()).then_some((self.bytes.len(), self.index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The contract read off the whole text: first end, then longest.
    fn naive(stops: &[String], text: &str) -> (String, Option<usize>) {
        for end in 1..=text.len() {
            let ending = stops
                .iter()
                .enumerate()
                .filter(|(_, s)| !s.is_empty() && text.as_bytes()[..end].ends_with(s.as_bytes()));
            if let Some((index, stop)) = ending.max_by_key(|(i, s)| (s.len(), std::cmp::Reverse(*i))) {
                return (text[..end - stop.len()].to_string(), Some(index));
            }
        }
        (text.to_string(), None)
    }

    fn stream(stops: &[String], pieces: &[String]) -> (String, Option<usize>) {
        let mut matcher = StopMatcher::new(stops);
        let mut out = String::new();
        for piece in pieces {
            let step = matcher.push(piece);
            out += &step.text;
            if step.stopped.is_some() {
                return (out, step.stopped);
            }
        }
        (out + &matcher.finish(), None)
    }

    fn check(stops: &[&str], pieces: &[&str], emitted: &[&str], stopped: Option<usize>) {
        let mut matcher = StopMatcher::new(stops);
        let steps: Vec<Step> = pieces.iter().map(|piece| matcher.push(piece)).collect();
        assert_eq!(
            steps.iter().map(|s| s.text.as_str()).collect::<Vec<_>>(),
            emitted,
            "{stops:?} {pieces:?}"
        );
        assert_eq!(matcher.stopped(), stopped, "{stops:?} {pieces:?}");
    }

    #[test]
    fn text_is_held_back_only_while_a_stop_string_may_begin() {
        check(&["END"], &["a E", "N", "x"], &["a ", "", "ENx"], None);
        check(&["END"], &["aEN", "D tail", "more"], &["a", "", ""], Some(0));
        check(&["abc", "b"], &["xab"], &["xa"], Some(1));
        check(&["b", "ab"], &["xab"], &["x"], Some(1));
        check(&["aab"], &["aa", "aab"], &["", "aa"], Some(0));
        check(&["é!"], &["caf", "é", "!"], &["caf", "", ""], Some(0));
        check(&["é"], &["ê", "é"], &["ê", ""], Some(0));
        check(&[""], &["abc"], &["abc"], None);
        check(&[], &["abc"], &["abc"], None);
    }

    #[test]
    fn the_end_releases_what_was_held() {
        let mut matcher = StopMatcher::new(&["<end>"]);
        assert_eq!(matcher.push("yes <en").text, "yes ");
        assert_eq!(matcher.finish(), "<en");
        assert_eq!(matcher.push("d>").text, "d>");
    }

    proptest! {
        #[test]
        fn streaming_equals_searching_the_whole(
            stops in prop::collection::vec("[ab\u{e9}\u{4f60}]{0,4}", 0..4),
            pieces in prop::collection::vec("[ab\u{e9}\u{4f60}\u{1f600}]{0,5}", 0..8),
        ) {
            prop_assert_eq!(stream(&stops, &pieces), naive(&stops, &pieces.concat()));
        }
    }
}
