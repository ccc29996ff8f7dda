//! Query parameters: decoded once, each at most once.

use std::str::FromStr;

use crate::{
    app::Error,
    http::message::fields,
    model::name::{Folder, UserId},
};

/// The parameters of a request. Unknown ones are passed over.
pub struct Query(Vec<Parameter>);

struct Parameter {
    name: String,
    value: String,
    /// With each `+` as it stands, where there is one.
    literal: Option<String>,
}

/// Parameters of one request at most.
const PARAMETERS_MAX: usize = 32;

impl Query {
    /// # Errors
    /// [`Error::Invalid`] for text that is not percent-encoded UTF-8, and for a parameter that
    /// comes twice: nobody can say which one counts.
    pub fn parse(query: Option<&str>) -> Result<Self, Error> {
        let mut parameters: Vec<Parameter> = Vec::new();
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        for pair in pairs {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let literal = value.contains('+').then(|| decode(&value.replace('+', "%2B")));
            let (name, value) = (decode(name)?, decode(value)?);
            if parameters.len() == PARAMETERS_MAX {
                return Err(Error::invalid("invalid_query", "There are more than 32 parameters."));
            }
            if parameters.iter().any(|known| known.name == name) {
                let detail = format!("The parameter {name} comes twice.");
                return Err(Error::invalid("duplicate_parameter", detail));
            }
            parameters.push(Parameter { name, value, literal: literal.transpose()? });
        }
        Ok(Self(parameters))
    }

    fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.0.iter().find(|known| known.name == name)
    }

    /// One without a value is as good as none: clients send whatever they have a variable for.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.exact(name).filter(|value| !value.is_empty())
    }

    /// What stands there, even if that is nothing: where none must not count as left out.
    pub fn exact(&self, name: &str) -> Option<&str> {
        self.parameter(name).map(|parameter| parameter.value.as_str())
    }

    /// The user that it names: `user_id`, else `user_email`. One of them may be empty, but not all
    /// that there is: a service that names nobody is given everything, which is not what one means
    /// whose variable holds nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what cannot be a user id.
    pub fn user(&self) -> Result<Option<UserId>, Error> {
        let said = ["user_id", "user_email"].map(|name| self.exact(name));
        let mut named = said.into_iter().flatten();
        let user = named.clone().find(|user| !user.is_empty()).or_else(|| named.next());
        user.map(fields::user_id).transpose()
    }

    /// What whoever pasted the value as it is meant by a `+` in it; `None` where there is none.
    pub fn literal(&self, name: &str) -> Option<&str> {
        self.parameter(name)?.literal.as_deref()
    }

    /// What it is refused for when it is empty is for whoever reads it to say.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the parameter when it is not there.
    pub fn required(&self, name: &'static str) -> Result<&str, Error> {
        self.exact(name).ok_or_else(|| {
            Error::invalid("missing_parameter", format!("The parameter {name} is needed."))
        })
    }

    /// # Errors
    /// [`Error::Invalid`] with `code` for anything but digits that fit.
    pub fn number<T: FromStr>(
        &self,
        name: &'static str,
        code: &'static str,
    ) -> Result<Option<T>, Error> {
        self.text(name).map(|text| fields::number(text, name, code)).transpose()
    }

    /// `limit`: how many entries of a list are wanted.
    ///
    /// # Errors
    /// [`Error::Invalid`] for none, and for what is no number.
    pub fn limit(&self) -> Result<Option<u64>, Error> {
        let limit = self.number("limit", "invalid_limit")?;
        if limit == Some(0) {
            return Err(Error::invalid("invalid_limit", "limit must be at least 1."));
        }
        Ok(limit)
    }

    /// `cursor`: where a page of a list begins, as the one before said.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what cannot be parsed.
    pub fn cursor<T>(&self, parse: fn(&str) -> Option<T>) -> Result<Option<T>, Error> {
        let wrong = || Error::invalid("invalid_cursor", "The cursor is not one of ours.");
        self.text("cursor").map(|text| parse(text).ok_or_else(wrong)).transpose()
    }

    /// `folder`, the top when it is not there.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what cannot be a folder.
    pub fn folder(&self) -> Result<Folder, Error> {
        fields::folder(self.text("folder").unwrap_or_default())
    }
}

/// `application/x-www-form-urlencoded`, but strict: two names that differ stay different.
fn decode(text: &str) -> Result<String, Error> {
    let decoded = fields::percent_decoded(&text.replace('+', " "));
    let detail = "The query is not percent-encoded UTF-8.";
    decoded.ok_or_else(|| Error::invalid("invalid_query", detail))
}
