"""What a trained model is for: scans in, masks, volumes and pages out."""
