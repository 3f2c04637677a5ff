//! Scripts: an input as a sequence of steps, for targets with a state.

/// Reads values off the front of an input; past its end there are zeros.
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    /// Over an input.
    pub fn new(input: &'a [u8]) -> Self {
        Script(input)
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// The next two bytes as a number.
    pub fn short(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let head = self.bytes(N);
        let mut array = [0; N];
        array[..head.len()].copy_from_slice(head);
        array
    }

    /// A length of at most `limit` and so many bytes, as far as there are any.
    pub fn slice(&mut self, limit: usize) -> &'a [u8] {
        let length = usize::from(self.short()).min(limit);
        self.bytes(length)
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        head
    }
}

/// Puts a script together; the inverse of [`Script`].
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// Appends a byte.
    pub fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    /// Appends a number of two bytes.
    pub fn short(mut self, number: u16) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    /// Appends bytes without their length.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// Appends bytes with their length.
    pub fn slice(self, bytes: &[u8]) -> Self {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.short(length).raw(&bytes[..usize::from(length)])
    }
}
