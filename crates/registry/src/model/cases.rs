//! Stories that once went wrong, as the model found and shrank them.
