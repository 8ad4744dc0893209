//! `$((…))`: whole numbers with `+ - * / %` and parentheses.

/// The value, or what is wrong. Names stand for themselves and must be expanded before; what is unset counts as 0.
pub(super) fn calculate(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<i64, String> {
    let mut reader = Reader { rest: text, depth: 0, lookup };
    let value = reader.sum()?;
    if reader.rest.trim_start().is_empty() { Ok(value) } else { Err(malformed(text)) }
}

fn malformed(text: &str) -> String {
    format!("{text:?} is no arithmetic that is supported here (numbers, + - * / % and parentheses)")
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
    lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl Reader<'_> {
    fn operator(&mut self, any_of: &str) -> Option<char> {
        self.rest = self.rest.trim_start();
        let operator = self.rest.chars().next().filter(|c| any_of.contains(*c))?;
        self.rest = &self.rest[1..];
        Some(operator)
    }

    fn sum(&mut self) -> Result<i64, String> {
        let mut value = self.product()?;
        while let Some(operator) = self.operator("+-") {
            let right = self.product()?;
            let result = if operator == '+' { value.checked_add(right) } else { value.checked_sub(right) };
            value = result.ok_or("the result is too large")?;
        }
        Ok(value)
    }

    fn product(&mut self) -> Result<i64, String> {
        let mut value = self.factor()?;
        while let Some(operator) = self.operator("*/%") {
            let right = self.factor()?;
            let result = match operator {
                '*' => value.checked_mul(right),
                '/' => value.checked_div(right),
                _ => value.checked_rem(right),
            };
            value = result.ok_or("the result is too large, or a division by zero")?;
        }
        Ok(value)
    }

    fn factor(&mut self) -> Result<i64, String> {
        self.depth += 1;
        if self.depth > super::DEPTH_LIMIT {
            return Err("nested too deeply".to_owned());
        }
        let value = if self.operator("-").is_some() {
            self.factor()?.checked_neg().ok_or("the result is too large")?
        } else if self.operator("(").is_some() {
            let value = self.sum()?;
            self.operator(")").ok_or_else(|| malformed(self.rest))?;
            value
        } else {
            self.number()?
        };
        self.depth -= 1;
        Ok(value)
    }

    fn number(&mut self) -> Result<i64, String> {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        if super::syntax::is_name(word) {
            let value = (self.lookup)(word).unwrap_or_default();
            return if value.is_empty() { Ok(0) } else { value.parse().map_err(|_| malformed(&value)) };
        }
        word.parse().map_err(|_| malformed(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precedence_and_parentheses() {
        let lookup = |name: &str| (name == "N").then(|| "7".to_owned());
        for (text, value) in [("1+2*3", 7), ("(1+2)*3", 9), (" N % 2 ", 1), ("RANDOM % 2", 0), ("-3 - -4", 1)]
        {
            assert_eq!(calculate(text, &lookup), Ok(value), "{text}");
        }
        for bad in ["", "1/0", "1 2", "(1", "x+", "9223372036854775807+1", "1<<2"] {
            assert!(calculate(bad, &lookup).is_err(), "{bad}");
        }
        assert!(calculate(&"(".repeat(100_000), &lookup).is_err());
        assert!(calculate(&"-".repeat(100_000), &lookup).is_err());
    }
}
