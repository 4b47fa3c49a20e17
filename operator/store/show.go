package store

import (
	"context"
	"fmt"
	"path"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// maxShown bounds one reading of the list.
const maxShown = 5000

// BirthEntry is a certificate in the list.
type BirthEntry struct {
	Namespace, Pod string
	Created        time.Time
}

// birthNames are where a pod's certificate may be. What the list has of a pod whose
// name is too long for one is the certificate's own.
func birthNames(namespace, pod string) []string {
	return []string{identity{namespace: namespace, pod: pod, signal: signal.PodCreation}.birthName(), pod + birthTail}
}

// podOf undoes birthName, as far as that can be.
func podOf(certificate string) string { return strings.TrimSuffix(certificate, birthTail) }

// Birth returns the certificate of a pod, nil where there is none.
func (k *Kubernetes) Birth(ctx context.Context, namespace, pod string) (*v1alpha1.PodBirthCertificate, error) {
	for _, name := range birthNames(namespace, pod) {
		b := &v1alpha1.PodBirthCertificate{}
		err := k.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, b)
		switch {
		case err == nil:
			return b, nil
		case !apierrors.IsNotFound(err):
			return nil, fmt.Errorf("reading PodBirthCertificate %s/%s: %w", namespace, name, err)
		}
	}
	return nil, nil
}

// Births lists certificates, at most 5,000.
func (k *Kubernetes) Births(ctx context.Context) ([]BirthEntry, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(v1alpha1.GroupVersion().WithKind(v1alpha1.PodBirthCertificateKind + "List"))
	if err := k.client.List(ctx, list, client.Limit(maxShown)); err != nil {
		return nil, fmt.Errorf("listing %s: %w", v1alpha1.PodBirthCertificateKind, err)
	}
	all := make([]BirthEntry, len(list.Items))
	for i, m := range list.Items {
		all[i] = BirthEntry{Namespace: m.Namespace, Pod: podOf(m.Name), Created: m.CreationTimestamp.Time}
	}
	return all, nil
}

// Birth returns the certificate of a pod, nil where there is none.
func (d *Directory) Birth(_ context.Context, namespace, pod string) (*v1alpha1.PodBirthCertificate, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range birthNames(namespace, pod) {
		b, err := load[v1alpha1.PodBirthCertificate](d, path.Join(namespace, birthFolder), name)
		if b != nil || err != nil {
			return b, err
		}
	}
	return nil, nil
}

// Births lists certificates, at most 5,000, each with the time at which it was written.
func (d *Directory) Births(context.Context) ([]BirthEntry, error) {
	var all []BirthEntry
	err := d.each(birthFolder, func(folder, name string) error {
		info, err := d.root.Stat(path.Join(folder, name+extension))
		if err != nil || len(all) == maxShown {
			return ignoreMissing(err)
		}
		all = append(all, BirthEntry{Namespace: path.Dir(folder), Pod: podOf(name), Created: info.ModTime()})
		return nil
	})
	return all, err
}
