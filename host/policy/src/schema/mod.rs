//! JSON Schema (2020-12) with a budget: compiling takes time and memory in proportion to the schema, and
//! each step of a check is charged.
//!
//! A schema is a small program that a policy brings, so it is run like one. The usual libraries can
//! be neither metered nor interrupted: two kilobytes of `$ref`s that each name the one before twice keep
//! them busy for longer than the universe is old. Here
//!
//! - [`compile`] makes a graph, one node for each schema, `$ref`s as edges. It refuses a graph in which
//!   one value alone could take more than [`MAX_VALUE_STEPS`], or whose `$ref`s never get to the value;
//! - `check` walks graph and value together; it stops at the first error, and at the end of its budget.
//!
//! Every assertion and applicator of the draft is there; `format` and `content*` are annotations, as the
//! draft has it. Patterns never backtrack.

mod check;
mod compile;
mod equal;
mod pattern;
mod words;

pub(crate) use check::Stop;
pub(crate) use words::shown;

use pattern::Pattern;
use serde_json::{Number, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Steps that a schema may take for one value, apart from what is inside of the value.
const MAX_VALUE_STEPS: u64 = 10_000;

/// Schemas that may stand one in the other, by `$ref`, `allOf` and the like, for one value.
const MAX_NESTING: u64 = 48;

/// A schema that was compiled.
#[derive(Debug)]
pub(crate) struct Schema {
    nodes: Vec<Node>,
}

type NodeId = usize;

/// What one schema says: rules, all of which must hold.
#[derive(Debug, Default)]
struct Node {
    rules: Vec<Rule>,
}

#[derive(Debug)]
enum Rule {
    /// The schema `false`.
    Nothing,
    /// Bits of [`words::kinds`].
    Types(u8),
    Enum(Vec<Value>),
    Const(Value),
    Bound(Bound, Number),
    MultipleOf(Number),
    MinLength(u64),
    MaxLength(u64),
    Pattern(Arc<Pattern>),
    MinItems(u64),
    MaxItems(u64),
    UniqueItems,
    Items {
        first: Vec<NodeId>,
        rest: Option<NodeId>,
    },
    Contains {
        what: NodeId,
        least: u64,
        most: u64,
    },
    MinProperties(u64),
    MaxProperties(u64),
    Required(Vec<String>),
    DependentRequired(Vec<(String, Vec<String>)>),
    DependentSchemas(Vec<(String, NodeId)>),
    PropertyNames(NodeId),
    Properties(Box<Properties>),
    AllOf(Vec<NodeId>),
    AnyOf(Vec<NodeId>),
    OneOf(Vec<NodeId>),
    Not(NodeId),
    If {
        condition: NodeId,
        then: Option<NodeId>,
        otherwise: Option<NodeId>,
    },
    Ref(NodeId),
    /// After all others.
    UnevaluatedItems(NodeId),
    /// After all others.
    UnevaluatedProperties(NodeId),
}

#[derive(Debug, Default)]
struct Properties {
    named: BTreeMap<String, NodeId>,
    patterns: Vec<(Arc<Pattern>, NodeId)>,
    others: Option<NodeId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Minimum,
    Maximum,
    ExclusiveMinimum,
    ExclusiveMaximum,
}

impl Rule {
    /// The schemas that are asked about the same value.
    fn same_value(&self) -> Vec<NodeId> {
        match self {
            Self::AllOf(all) | Self::AnyOf(all) | Self::OneOf(all) => all.clone(),
            Self::Not(one) | Self::Ref(one) => vec![*one],
            Self::If {
                condition,
                then,
                otherwise,
            } => [Some(*condition), *then, *otherwise]
                .into_iter()
                .flatten()
                .collect(),
            Self::DependentSchemas(all) => all.iter().map(|(_, node)| *node).collect(),
            _ => Vec::new(),
        }
    }
}
