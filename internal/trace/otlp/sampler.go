package otlp

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	otel "go.opentelemetry.io/otel/trace"
)

// sampler decides which traces are recorded. Who asks from outside can only ask for
// less: a trace that its client does not record is not recorded here either, and of
// the others it is a secret function of the id which are. With OpenTelemetry's own
// samplers a client says that its trace is recorded, or chooses an id that is.
type sampler struct {
	secret []byte
	below  float64 // of 64 bits
}

func newSampler(ratio float64, secret []byte) sdk.Sampler {
	return sampler{secret, ratio * math.MaxUint64}
}

// ShouldSample implements sdk.Sampler.
func (s sampler) ShouldSample(p sdk.SamplingParameters) sdk.SamplingResult {
	parent := otel.SpanContextFromContext(p.ParentContext)
	sampled := false
	switch {
	case parent.IsValid() && (!parent.IsRemote() || !parent.IsSampled()):
		sampled = parent.IsSampled()
	default:
		sampled = s.below > 0 && float64(s.number(p.TraceID)) <= s.below
	}
	result := sdk.SamplingResult{Decision: sdk.Drop, Tracestate: parent.TraceState()}
	if sampled {
		result.Decision = sdk.RecordAndSample
	}
	return result
}

// number is evenly spread over all numbers of 64 bits.
func (s sampler) number(id otel.TraceID) uint64 {
	mac := hmac.New(sha256.New, s.secret)
	mac.Write(id[:])
	return binary.BigEndian.Uint64(mac.Sum(nil))
}

// Description implements sdk.Sampler.
func (s sampler) Description() string {
	return fmt.Sprintf("AgentCube{%g}", s.below/math.MaxUint64)
}
