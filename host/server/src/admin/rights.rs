//! The rights of the admin plane: the one table that flags, files, messages and docs are made of.

use std::collections::BTreeSet;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::{Deserialize, Serialize};

/// The table. A new right is a row: it is held by the tokens that name it, so by no older one.
macro_rules! rights {
    ($($right:ident = $name:literal: $allows:literal,)+) => {
        /// What a token may do with what its glob names.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum Right {
            $(#[doc = $allows] $right,)+
        }

        impl Right {
            /// All of them, as they are listed.
            pub const ALL: &[Self] = &[$(Self::$right,)+];

            /// Its name in flags, files and messages.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$right => $name,)+
                }
            }

            /// What it allows, as help and docs have it.
            pub fn allows(self) -> &'static str {
                match self {
                    $(Self::$right => $allows,)+
                }
            }
        }
    };
}

rights! {
    Read = "read": "Policies, versions, their numbers, events, models; no text that a policy said",
    Texts = "texts": "With `read`: what policies said of live requests (log lines, messages of faults and events)",
    Push = "push": "Uploading and deleting versions",
    Activate = "activate": "Deciding which version serves; filling the row cache",
    Metrics = "metrics": "`/metrics`, which names all policies: good with `*` only",
}

impl ValueEnum for Right {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.allows()))
    }
}

/// What a token of version 0.1 may do, said in the rights of today. Its file knew `read`, `push` and
/// `activate`: `read` opened the metrics if it was for all names, and `read` with `push` showed texts.
///
/// # Errors
/// A sentence: such a file has no other right.
pub(super) fn of_first_format(
    rights: &BTreeSet<Right>,
    all_names: bool,
) -> Result<BTreeSet<Right>, String> {
    let known = [Right::Read, Right::Push, Right::Activate];
    if let Some(right) = rights.iter().find(|right| !known.contains(right)) {
        return Err(format!(
            "a file without `format` has no right `{}`",
            right.name()
        ));
    }
    let mut meant = rights.clone();
    if rights.contains(&Right::Read) && rights.contains(&Right::Push) {
        meant.insert(Right::Texts);
    }
    if rights.contains(&Right::Read) && all_names {
        meant.insert(Right::Metrics);
    }
    Ok(meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_token_may_what_it_could_and_no_more() {
        use Right::{Activate, Metrics, Push, Read, Texts};
        let meant = |rights: &[Right], all_names| {
            of_first_format(&rights.iter().copied().collect(), all_names)
                .map(|meant| meant.into_iter().collect::<Vec<_>>())
        };
        for (rights, all_names, expected) in [
            (&[Read][..], false, &[Read][..]),
            (&[Read], true, &[Read, Metrics]),
            (&[Push], true, &[Push]),
            (&[Activate], true, &[Activate]),
            (&[Push, Activate], true, &[Push, Activate]),
            (&[Read, Activate], false, &[Read, Activate]),
            (&[Read, Push], false, &[Read, Texts, Push]),
            (&[Read, Push], true, &[Read, Texts, Push, Metrics]),
            (&[Read, Push, Activate], true, Right::ALL),
        ] {
            assert_eq!(
                meant(rights, all_names),
                Ok(expected.to_vec()),
                "{rights:?}"
            );
        }
        for right in [Texts, Metrics] {
            let problem = meant(&[Read, right], true).expect_err("it is new");
            assert!(problem.contains(right.name()), "{problem}");
        }
    }

    #[test]
    fn the_page_on_operations_has_the_table() {
        let page = include_str!("../../../../docs/operations.md");
        let table: String = Right::ALL
            .iter()
            .map(|right| format!("| `{}` | {} |\n", right.name(), right.allows()))
            .collect();
        assert!(
            page.contains(&table),
            "docs/operations.md must have these rows:\n{table}"
        );
    }
}
