package exit

import (
	"errors"
	"fmt"
	"testing"

	"meta1/confparse"
)

// TestStatus: an error has the status that it was given, however it is wrapped; what is wrong in a configuration needs
// to be given none.
func TestStatus(t *testing.T) {
	wrong := confparse.Errors{{Severity: confparse.SeverityError, Message: "no such option"}}
	cause := errors.New("the disk is full")
	for name, c := range map[string]struct {
		err  error
		want int
	}{
		"none":                  {nil, OK},
		"none, with a status":   {With(IOErr, nil), OK},
		"given":                 {With(IOErr, cause), IOErr},
		"given, wrapped":        {fmt.Errorf("writing: %w", With(IOErr, cause)), IOErr},
		"not given":             {cause, Software},
		"configuration":         {wrong, Config},
		"configuration, given":  {With(DataErr, wrong), DataErr},
		"configuration, joined": {errors.Join(cause, wrong), Config},
	} {
		if got := Status(c.err); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	if err := With(IOErr, cause); !errors.Is(err, cause) || err.Error() != cause.Error() {
		t.Errorf("the cause is hidden: %v", err)
	}
}
