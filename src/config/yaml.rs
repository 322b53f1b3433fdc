//! YAML text as a tree that keeps what a tree of values drops: keys given twice, numbers as they were written, and the
//! line of every key.
//!
//! Invariant: nothing here knows which keys there are, or what they mean.

use std::fmt;

use serde::{
    Deserializer,
    de::{
        self, DeserializeSeed, EnumAccess, Error as _, IgnoredAny, MapAccess, SeqAccess,
        VariantAccess, Visitor,
    },
};

/// One value of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// No value, or `null`.
    Nothing,
    /// A number, `true` or `false`, as it was written.
    Plain(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping in the order of the text; a key can stand in it twice.
    Map(Vec<(String, Node)>),
    /// A value with a tag of its own (`!rc`): nearly always a text that lacks its quotes.
    Tagged(String),
}

impl Node {
    /// What it is, without what it says.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Plain(_) | Self::Text(_) | Self::Tagged(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Where a value stands: `projects.website.command[0]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeyPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Item(usize),
}

impl KeyPath {
    pub(crate) fn key(&self, key: &str) -> Self {
        self.and(Step::Key(key.to_owned()))
    }

    pub(crate) fn item(&self, index: usize) -> Self {
        self.and(Step::Item(index))
    }

    pub(crate) fn parent(&self) -> Option<Self> {
        let (_, parents) = self.0.split_last()?;
        Some(Self(parents.to_vec()))
    }

    fn and(&self, step: Step) -> Self {
        let mut path = self.clone();
        path.0.push(step);
        path
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => formatter.write_str(key)?,
                Step::Key(key) => write!(formatter, ".{key}")?,
                Step::Item(index) => write!(formatter, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Reads the text as one YAML document. A text without any value is [`Node::Nothing`].
pub(crate) fn parse(text: &str) -> Result<Node, serde_yaml::Error> {
    let has_value = |line: &str| !matches!(line.trim_start().chars().next(), None | Some('#'));
    if !text.lines().any(has_value) {
        return Ok(Node::Nothing);
    }
    let build = Build {
        text,
        path: KeyPath::default(),
    };
    build.deserialize(serde_yaml::Deserializer::from_str(text))
}

/// The line, counted from 1, of a key, or of an item of a list. A key that its mapping holds twice: the nth, counted from 0.
/// For texts that [`parse`] has taken.
pub(crate) fn line_of(text: &str, path: &KeyPath, nth: usize) -> Option<usize> {
    let find = Find {
        steps: &path.0,
        goal: Goal::Fail { nth },
    };
    let failure = find
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .err()?;
    failure.location().map(|location| location.line())
}

/// A scalar as it was written: `0x1f`, where the parser of values says 31.
fn written(text: &str, path: &KeyPath) -> Option<String> {
    let find = Find {
        steps: &path.0,
        goal: Goal::Written,
    };
    find.deserialize(serde_yaml::Deserializer::from_str(text))
        .ok()?
}

/// Builds the tree.
struct Build<'a> {
    text: &'a str,
    path: KeyPath,
}

impl Build<'_> {
    fn plain(&self, value: &dyn fmt::Display) -> Node {
        Node::Plain(written(self.text, &self.path).unwrap_or_else(|| value.to_string()))
    }
}

impl<'de> DeserializeSeed<'de> for Build<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Build<'_> {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        Ok(self.plain(&value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        Ok(self.plain(&value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        Ok(self.plain(&value))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Node, E> {
        Ok(self.plain(&value))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Node, E> {
        Ok(self.plain(&value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        Ok(self.plain(&value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(Build {
            text: self.text,
            path: self.path.item(items.len()),
        })? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(Build {
                text: self.text,
                path: self.path.key(&key),
            })?;
            entries.push((key, value));
        }
        Ok(Node::Map(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Node, A::Error> {
        let (tag, value) = tagged.variant::<String>()?;
        value.newtype_variant::<IgnoredAny>()?;
        Ok(Node::Tagged(tag))
    }
}

/// Walks down to one place. The parser tells a position with its errors alone, so the way to learn it is to fail there.
/// As the text has been parsed before, there is no other failure.
#[derive(Clone, Copy)]
struct Find<'a> {
    steps: &'a [Step],
    goal: Goal,
}

/// The text of that failure; nobody reads it.
const PLACE: &str = "the place searched for";

#[derive(Clone, Copy)]
enum Goal {
    /// Fail there: at the nth such key, or at the item.
    Fail { nth: usize },
    /// Come back with the scalar as it was written.
    Written,
}

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        match (self.steps.is_empty(), self.goal) {
            (true, Goal::Written) => deserializer.deserialize_str(self),
            (true, Goal::Fail { .. }) | (false, _) => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = Option<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(PLACE)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
        match self.goal {
            Goal::Written => Ok(Some(value.to_owned())),
            Goal::Fail { .. } => Err(E::custom(PLACE)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let Some((Step::Item(wanted), steps)) = self.steps.split_first() else {
            return Err(A::Error::custom(PLACE));
        };
        for _ in 0..*wanted {
            list.next_element::<IgnoredAny>()?;
        }
        let found = list.next_element_seed(Find { steps, ..self })?.flatten();
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Some((Step::Key(wanted), steps)) = self.steps.split_first() else {
            return Err(A::Error::custom(PLACE));
        };
        let mut fail_after = match self.goal {
            Goal::Fail { nth } if steps.is_empty() => Some(nth),
            Goal::Fail { .. } | Goal::Written => None,
        };
        let mut found = None;
        while let Some(is_wanted) = map.next_key_seed(FindKey {
            wanted,
            fail: fail_after == Some(0),
        })? {
            if is_wanted && fail_after.is_none() && found.is_none() {
                found = map.next_value_seed(Find { steps, ..self })?;
            } else {
                map.next_value::<IgnoredAny>()?;
                fail_after = fail_after.map(|nth| nth.saturating_sub(usize::from(is_wanted)));
            }
        }
        Ok(found)
    }
}

/// Tells whether a key is the wanted one; fails at it where asked to.
struct FindKey<'a> {
    wanted: &'a str,
    fail: bool,
}

impl<'de> DeserializeSeed<'de> for FindKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FindKey<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<bool, E> {
        if self.fail && key == self.wanted {
            return Err(E::custom(PLACE));
        }
        Ok(key == self.wanted)
    }
}
