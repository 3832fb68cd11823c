package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// Code names a kind of failure. Codes are stable: added, never renamed.
type Code string

// The codes of this package.
const (
	CodeReferenceInvalid Code = "IMAGE_REFERENCE_INVALID" // not a reference that can be used
	CodeNotFound         Code = "IMAGE_NOT_FOUND"         // no such image in the store, registry or path
	CodeInUse            Code = "IMAGE_IN_USE"            // a sandbox or another process uses the image
	CodeSourceInvalid    Code = "IMAGE_SOURCE_INVALID"    // truncated, malformed, or not an image at all
	CodeDigestMismatch   Code = "IMAGE_DIGEST_MISMATCH"   // content is not what its digest or size says
	CodeArchiveUnsafe    Code = "IMAGE_ARCHIVE_UNSAFE"    // a layer tries to reach outside its root, or is ambiguous
	CodeTooLarge         Code = "IMAGE_TOO_LARGE"         // over one of Limits
	CodePlatformMissing  Code = "IMAGE_PLATFORM_MISSING"  // nothing in it for this machine's platform
	CodeAmbiguous        Code = "IMAGE_AMBIGUOUS"         // the source has several images and the name picks none
	CodeUnsupported      Code = "IMAGE_UNSUPPORTED"       // a format this package does not read
	CodeDiskFull         Code = "IMAGE_DISK_FULL"         // no space left, nothing was kept
	CodeBuildFailed      Code = "IMAGE_BUILD_FAILED"      // mkfs.erofs is missing or failed, or wrote what gVisor cannot read
	CodePullFailed       Code = "IMAGE_PULL_FAILED"       // the registry refused or cannot be reached
	CodeStoreCorrupt     Code = "IMAGE_STORE_CORRUPT"     // the store's own files are damaged
	CodePermission       Code = "IMAGE_PERMISSION"        // this process may not set owners or use the directory
)

// Error is a failure with a stable code.
type Error struct {
	Code Code
	// Text says what went wrong, in words for the user.
	Text string
	// Hint says what to do about it; empty when there is nothing useful to say.
	Hint string
	// Cause is the underlying error, or nil.
	Cause error
}

// Error returns the text and the cause.
func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Text
	}
	return e.Text + ": " + e.Cause.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is makes an Error with CodeNotFound match sandbox.ErrNoImage, which is what
// drivers are promised.
func (e *Error) Is(target error) bool {
	return target == sandbox.ErrNoImage && e.Code == CodeNotFound
}

// CodeOf returns the code of err, or "" when it has none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func errorf(code Code, format string, args ...any) *Error {
	e := &Error{Code: code}
	wrapped := fmt.Errorf(format, args...)
	e.Text = wrapped.Error()
	return e
}

// unsafef is the error for an entry of a layer that must not be unpacked.
func unsafef(name, format string, args ...any) error {
	return &Error{
		Code: CodeArchiveUnsafe,
		Text: fmt.Sprintf("entry %q: %s", clip(name), fmt.Sprintf(format, args...)),
		Hint: "the image was made to mislead, or by a broken tool: do not use it",
	}
}

func tooLarge(format string, args ...any) error {
	return &Error{Code: CodeTooLarge, Text: fmt.Sprintf(format, args...), Hint: "use a smaller image"}
}

// classify gives an error that came from the system the code that fits it.
// Errors that have a code, and those of an ended context, stay as they are.
func classify(err error, otherwise Code, text string) error {
	var e *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &Error{Code: CodeDiskFull, Text: text, Cause: err, Hint: "free space where images are kept, or remove images"}
	case errors.Is(err, fs.ErrPermission):
		return &Error{Code: CodePermission, Text: text, Cause: err, Hint: "run as root: files in an image have owners"}
	default:
		return &Error{Code: otherwise, Text: text, Cause: err}
	}
}

// clip keeps a name that an archive chose from filling an error.
func clip(name string) string {
	const most = 200
	if len(name) > most {
		return name[:most] + "…"
	}
	return name
}
