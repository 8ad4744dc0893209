//! Which tables there are, what their columns are called, and which indices serve them.

use std::collections::BTreeMap;

use super::btree::TableCursor;
use super::page::{Database, SqliteError};
use super::record::{MAX_COLUMNS, Record};

/// Most objects in a schema; a catalog has about a dozen.
const OBJECTS_MAX: usize = 256;
/// Longest statement of a schema in bytes.
const SQL_MAX: usize = 8 << 10;

/// A table that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// Root page of its tree.
    pub(crate) root: u32,
    /// Columns in the order of the record, lower case.
    columns: Vec<String>,
    indices: Vec<Index>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Index {
    root: u32,
    columns: Vec<String>,
}

impl Table {
    /// Position of a column in the record.
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }

    /// Root page of an index over exactly these columns.
    pub(crate) fn index(&self, columns: &[&str]) -> Option<u32> {
        self.indices.iter().find(|index| index.columns == columns).map(|index| index.root)
    }
}

/// The readable tables of a database by lower-case name. Views, virtual tables and tables without row ids are not among them.
#[derive(Debug)]
pub(crate) struct Schema {
    tables: BTreeMap<String, Table>,
}

impl Schema {
    pub(crate) fn read(database: &Database) -> Result<Self, SqliteError> {
        let mut tables = BTreeMap::new();
        let mut indices = Vec::new();
        // Columns of the index that a table constraint makes, by table.
        let mut automatic = BTreeMap::new();
        let mut cursor = TableCursor::new(database, 1);
        let mut next = i64::MIN;
        for _ in 0..OBJECTS_MAX {
            let Some((id, payload)) = cursor.at_or_after(next)? else {
                break;
            };
            let record = Record::decode(payload).ok_or(SqliteError::Malformed("its schema is broken"))?;
            let text = |column| -> String {
                let bytes = record.get(column).bytes().flatten().unwrap_or_default();
                String::from_utf8_lossy(&bytes[..bytes.len().min(SQL_MAX)]).to_ascii_lowercase()
            };
            let root = record.get(3).integer().and_then(|root| u32::try_from(root).ok()).unwrap_or(0);
            let (kind, name, owner, sql) = (text(0), text(1), text(2), text(4));
            match kind.as_str() {
                "table" if root != 0 => {
                    if let Some(parsed) = parse_table(&sql) {
                        if let Some(key) = parsed.first_key {
                            automatic.insert(name.clone(), key);
                        }
                        let table = Table { root, columns: parsed.columns, indices: Vec::new() };
                        if tables.insert(name, table).is_some() {
                            return Err(SqliteError::Malformed("its schema has a table twice"));
                        }
                    }
                }
                "index" if root != 0 => indices.push((name, owner, root, sql)),
                _ => {}
            }
            match id.checked_add(1) {
                Some(after) => next = after,
                None => break,
            }
        }
        for (name, owner, root, sql) in indices {
            let columns = if name == format!("sqlite_autoindex_{owner}_1") {
                automatic.remove(&owner)
            } else {
                parse_index(&sql)
            };
            if let (Some(columns), Some(table)) = (columns, tables.get_mut(&owner)) {
                table.indices.push(Index { root, columns });
            }
        }
        Ok(Schema { tables })
    }

    /// A table by name in lower case.
    pub(crate) fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name)
    }
}

struct ParsedTable {
    columns: Vec<String>,
    /// Columns of the first PRIMARY KEY or UNIQUE constraint, which SQLite serves by its first automatic index.
    first_key: Option<Vec<String>>,
}

/// Reads a `create table` statement in lower case; `None` for what is no plain table.
fn parse_table(sql: &str) -> Option<ParsedTable> {
    let words: Vec<&str> = sql.split_whitespace().take(3).collect();
    if words.first() != Some(&"create") || !matches!(words.get(1), Some(&"table" | &"table\"")) {
        return None;
    }
    let (inside, after) = parenthesised(sql)?;
    if after.contains("without") {
        return None;
    }
    let mut parsed = ParsedTable { columns: Vec::new(), first_key: None };
    for item in split_list(inside) {
        let mut tokens = item.split_whitespace();
        let first = tokens.next()?;
        let keyword = first.split('(').next().unwrap_or(first);
        if matches!(keyword, "constraint" | "primary" | "unique" | "check" | "foreign") {
            let unique = item.contains("primary key") || keyword == "unique" || item.contains(" unique");
            if unique && parsed.first_key.is_none() {
                parsed.first_key = plain_names(parenthesised(item)?.0);
            }
            continue;
        }
        let rest = item[first.len()..].trim_start();
        // Its values would be elsewhere than in the record.
        if rest.contains("generated") || rest.contains(" as ") || rest.starts_with("as ") {
            return None;
        }
        // The row id by another name: the record holds NULL. No catalog has one.
        if rest.starts_with("integer primary key") {
            return None;
        }
        if rest.contains("primary key") || rest.contains("unique") {
            parsed.first_key.get_or_insert_with(|| vec![unquoted(first)]);
        }
        parsed.columns.push(unquoted(first));
    }
    (!parsed.columns.is_empty() && parsed.columns.len() <= MAX_COLUMNS).then_some(parsed)
}

/// Columns of a `create index` statement; `None` for a partial one, or one over anything but plain ascending columns.
fn parse_index(sql: &str) -> Option<Vec<String>> {
    let (inside, after) = parenthesised(sql)?;
    if !after.trim().is_empty() {
        return None;
    }
    plain_names(inside)
}

fn plain_names(list: &str) -> Option<Vec<String>> {
    split_list(list)
        .map(|item| (!item.is_empty() && !item.contains(char::is_whitespace)).then(|| unquoted(item)))
        .collect()
}

fn unquoted(name: &str) -> String {
    name.trim_matches(['"', '`', '[', ']', '\'']).to_owned()
}

/// What is inside the first parenthesis and what follows it.
fn parenthesised(sql: &str) -> Option<(&str, &str)> {
    let open = sql.find('(')?;
    let mut depth = 0_u32;
    for (at, letter) in sql[open..].char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((&sql[open + 1..open + at], &sql[open + at + 1..]));
        }
    }
    None
}

/// Splits at commas that are in no parenthesis.
fn split_list(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    list.split(move |letter| {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        letter == ',' && depth == 0
    })
    .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_and_key_of_a_real_catalog_are_found() {
        let parsed = parse_table(
            "create table catalog (md5path_1 integer, md5path_2 integer, name text, xattr blob,  \
             constraint pk_catalog primary key (md5path_1, md5path_2))",
        )
        .unwrap();
        assert_eq!(parsed.columns, ["md5path_1", "md5path_2", "name", "xattr"]);
        assert_eq!(parsed.first_key.unwrap(), ["md5path_1", "md5path_2"]);
        let index = parse_index("create index idx_catalog_parent on catalog (parent_1, parent_2)");
        assert_eq!(index.unwrap(), ["parent_1", "parent_2"]);
    }

    #[test]
    fn what_is_no_plain_table_or_index_is_left_out() {
        for sql in [
            "create view catalog as select 1",
            "create virtual table catalog using fts5(a)",
            "create table catalog (a integer, b generated always as (a))",
            "create table catalog (a integer primary key)",
            "create table catalog (a integer, primary key (a)) without rowid",
            "create table catalog",
            "create table catalog (a",
            "",
        ] {
            assert!(parse_table(sql).is_none(), "{sql}");
        }
        for sql in [
            "create index i on t (a desc)",
            "create index i on t (a) where b",
            "create index i on t (a collate nocase)",
            "",
        ] {
            assert!(parse_index(sql).is_none(), "{sql}");
        }
    }
}
