//! `rerankd token`: tokens of the admin plane, made and revoked on the machine that serves it. A running
//! server sees the change at its next request.

use std::fmt::Write as _;

use crate::admin::tokens::{self, Glob, Right, TokenRecord};
use crate::cli::{DataFlags, TokenCommand};
use crate::config::Config;
use crate::data_folder::DataFolder;

/// Does it and returns what is to be printed.
///
/// # Errors
/// A sentence.
pub fn run(command: TokenCommand) -> Result<String, String> {
    match command {
        TokenCommand::New {
            name,
            policies,
            rights,
            data,
        } => {
            let folder = DataFolder::open(&Config::data_dir(&data)?)?;
            let secret = tokens::create(&folder, &name, policies, rights.into_iter().collect())?;
            Ok(format!("{secret}\n"))
        }
        TokenCommand::List { json, data } => {
            let tokens = tokens::list(&existing(&data)?)?;
            Ok(if json {
                as_json(&tokens)
            } else {
                table(&tokens)
            })
        }
        TokenCommand::Revoke { name, data } => {
            tokens::revoke(&existing(&data)?, &name).map(|()| String::new())
        }
    }
}

fn existing(data: &DataFlags) -> Result<DataFolder, String> {
    DataFolder::existing(&Config::data_dir(data)?)
}

fn names(token: &TokenRecord) -> Vec<&'static str> {
    token.rights.iter().copied().map(Right::name).collect()
}

/// Without the digests, of which nobody has any use.
fn as_json(tokens: &[TokenRecord]) -> String {
    let tokens: Vec<_> = tokens
        .iter()
        .map(|token| {
            serde_json::json!({
                "name": token.name,
                "policies": token.policies.as_str(),
                "rights": names(token),
                "created_at": token.created_at,
            })
        })
        .collect();
    format!("{:#}\n", serde_json::json!({ "tokens": tokens }))
}

fn table(tokens: &[TokenRecord]) -> String {
    let width = |heading: &str, of: fn(&TokenRecord) -> usize| {
        let longest = tokens.iter().map(of).max().unwrap_or_default();
        longest.max(heading.len())
    };
    let name = width("NAME", |token| token.name.len());
    let policies = width("POLICIES", |token| Glob::as_str(&token.policies).len());
    let rights = width("RIGHTS", |token| names(token).join(",").len());
    let mut table = format!(
        "{:name$}  {:policies$}  {:rights$}  CREATED\n",
        "NAME", "POLICIES", "RIGHTS"
    );
    for token in tokens {
        let _ = writeln!(
            table,
            "{:name$}  {:policies$}  {:rights$}  {}",
            token.name,
            token.policies.as_str(),
            names(token).join(","),
            token.created_at
        );
    }
    table
}
