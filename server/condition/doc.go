// Package condition is the language of the option condition in sections check of smtps
// (README 8.5.1): boolean expressions over what is known of a session and a transaction,
// such as
//
//	mail =~ "@spam\\.example$" && transaction_rcpts_total > 5
//
// [Parse] reads a text, checks its types, and refuses identifiers whose value is not known
// at the stage. [Condition.Holds] evaluates it over [Facts]; [Condition.Explain] says in
// words which value each part had. The package is pure: no I/O, no clock, no state.
//
// # The language
//
// The operators and their precedence are those of C, from the loosest to the tightest:
//
//	||
//	&&
//	==  !=  =~
//	<  <=  >  >=
//	+  -
//	*  /
//	-  (of one operand)
//
// Operators of one row go from left to right; && and || leave their right operand out when
// the left one decides. Relations compare numbers, =~ matches a string, ! negates a
// condition. Nothing is converted: a number is no condition, and a string is no number.
// As in the README's grammar, ! takes the whole relation or match behind it, since nothing
// else there is a condition: !mail =~ "x" is !(mail =~ "x").
//
// Numbers are decimal and have 64 bits. Strings are written as in the configuration file,
// with the escapes of C; strings that follow each other are joined. The functions are
// strcmp(a, b) and strcasecmp(a, b), which give -1, 0 or 1, and match(a, b), another way
// to write a =~ b.
//
// The right operand of =~ is a regular expression of package regexp. It must be written as
// a string: what a client sends is data and never a pattern. Letters match in their case
// unless the expression begins with (?i).
//
// # Bounds
//
// A text has at most [MaxText] bytes and is nested at most [MaxDepth] deep. Matching takes
// time that is linear in the string.
package condition
