package kubetemplate

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	"github.com/volcano-sh/agentcube/internal/template"
)

// Config of a Source. Client is required.
type Config struct {
	Client dynamic.Interface
	// Namespace is the only one that is looked at; "" means all.
	Namespace string
	// DefaultImage is that of a CodeInterpreter that names none.
	DefaultImage string
	// Logger; nil means slog.Default().
	Logger *slog.Logger
}

// Source is a template.Source of the resources in a cluster. One that is not possible
// is not there; its status says why.
type Source struct {
	cfg     Config
	log     *slog.Logger
	current atomic.Pointer[template.Set]
	life    context.Context // ends with Close
	end     context.CancelFunc
	factory dynamicinformer.DynamicSharedInformerFactory

	mu  sync.Mutex
	all map[string]template.Template // by kind and namespace/name
}

var _ template.Source = (*Source)(nil)

// New makes a Source. It does no I/O.
func New(cfg Config) *Source {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	s := &Source{cfg: cfg, log: cfg.Logger, all: map[string]template.Template{}}
	s.life, s.end = context.WithCancel(context.Background())
	s.current.Store(template.NewSet())
	return s
}

// Open begins to watch, and returns when all resources are known.
func (s *Source) Open(ctx context.Context) error {
	s.factory = dynamicinformer.NewFilteredDynamicSharedInformerFactory(s.cfg.Client, 0, s.cfg.Namespace, nil)
	var known []cache.InformerSynced
	for kind, resource := range Resources() {
		informer := s.factory.ForResource(resource).Informer()
		handler, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { s.changed(kind, o, false) },
			UpdateFunc: func(_, o any) { s.changed(kind, o, false) },
			DeleteFunc: func(o any) { s.changed(kind, o, true) },
		})
		if err != nil {
			return fmt.Errorf("watch templates: %w", err)
		}
		known = append(known, handler.HasSynced)
	}
	s.factory.Start(s.life.Done())
	if !cache.WaitForCacheSync(ctx.Done(), known...) {
		s.Close()
		return fmt.Errorf("watch templates: %w", ctx.Err())
	}
	return nil
}

// Close stops watching. What was known stays.
func (s *Source) Close() {
	s.end()
	if s.factory != nil {
		s.factory.Shutdown()
	}
}

// Get implements template.Source.
func (s *Source) Get(kind, namespace, name string) (template.Template, error) {
	return s.current.Load().Get(kind, namespace, name)
}

// List implements template.Source.
func (s *Source) List() []template.Template { return s.current.Load().List() }

func (s *Source) changed(kind string, o any, deleted bool) {
	if unknown, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = unknown.Obj
	}
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return
	}
	key := kind + " " + u.GetNamespace() + "/" + u.GetName()
	t, err := Of(u, s.cfg.DefaultImage)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case deleted || err != nil:
		delete(s.all, key)
		if err != nil && !deleted {
			s.log.Warn("template is not usable", "template", key, "error", err)
		}
	default:
		s.all[key] = t
	}
	list := make([]template.Template, 0, len(s.all))
	for _, t := range s.all {
		list = append(list, t)
	}
	s.current.Store(template.NewSet(list...))
}
